"""What will be spent, with an interval and how often such intervals held on the user's own history."""
