"""What scores a response: a function, a reward model, a policy's log-ratio, or a judge that rates."""
