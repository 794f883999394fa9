"""The engine of the studies: cases, measurements that resume, results and pages."""
