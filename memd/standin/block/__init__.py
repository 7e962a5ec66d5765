"""The block layer of a stand-in: nodes, drives, jobs, exports, and the metadata of qcow2 images."""
