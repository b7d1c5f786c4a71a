"""What scores a response: a function, a reward model, or a judge that rates."""
