"""What tests share: networks, plans, chains and other materials, with no tests in it."""
