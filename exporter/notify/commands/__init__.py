"""What people type: `vllm-exporter test notify` and `vllm-exporter notify list|resend`."""
