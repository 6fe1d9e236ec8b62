"""PromQL over the store: parsing is promql-parser's, evaluation ours."""
