"""Many runs: made once, evaluated beside baselines, gathered and compared."""
