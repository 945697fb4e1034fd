"""What is a number, a table, an order or a byte: numpy and the standard library only."""
