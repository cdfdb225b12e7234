"""The wire contract of Viva Voce: it imports nothing of ours."""
