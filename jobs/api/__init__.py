"""The doors to a job: HTTP. Only here does the room know Django and Daphne."""
