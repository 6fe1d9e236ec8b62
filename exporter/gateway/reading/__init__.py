"""What requests and answers say: the model asked for, the tokens as they come, how it ended. Pure, no I/O."""
