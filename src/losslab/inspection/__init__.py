"""Facts and examples of a data set, behind `losslab data inspect`. No network is built."""
