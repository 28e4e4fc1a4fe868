"""What a call asks for, checked and spelled out image by image before anything runs."""
