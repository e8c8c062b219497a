"""One task's path from asked-for to done, here and on a cluster, and the KFP components that take it."""
