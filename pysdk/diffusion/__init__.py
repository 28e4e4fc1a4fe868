"""What a chain is made of, in numpy alone: schedules, timesteps, noise levels, prediction types and the step table."""
