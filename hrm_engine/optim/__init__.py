"""Update rules, parameter groups, averages of weights and learning-rate schedules."""
