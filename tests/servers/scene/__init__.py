"""What the tests are played with: real servers, a real broker, and many requests at a time."""
