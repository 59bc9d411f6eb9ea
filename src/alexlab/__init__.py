"""AlexNet (Krizhevsky, Sutskever and Hinton, 2012) re-run as a controlled study."""
