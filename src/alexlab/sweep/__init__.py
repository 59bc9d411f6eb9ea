"""Many runs: what a command line or a study asks for, and their launch."""
