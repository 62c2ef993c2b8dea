"""Fair tuning: as many trainings for each defense, judged on images that are held out of the training set."""
