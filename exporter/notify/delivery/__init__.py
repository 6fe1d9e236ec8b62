"""From the outbox to the endpoints: order, retries, circuits, and what becomes of what nobody takes."""
