"""What a user may write, as frozen pydantic models: sweep files, trials, pools."""
