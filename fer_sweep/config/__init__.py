"""All that a person may write, as frozen pydantic models: sweep files, trials, pools."""
