"""Another implementation's checkpoint that training goes on from."""
