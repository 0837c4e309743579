"""What every collector must do, and a driver for each that lets the suite do it."""
