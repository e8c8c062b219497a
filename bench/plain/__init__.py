"""What the product is compared with: the same mathematics as reference scripts write it. Textbook, not slowed down on purpose."""
