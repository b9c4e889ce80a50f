"""One thin door per outside thing. Every root path is a parameter."""
