"""The block layer of a stand-in. A module uses those of its row and below.

    drives, media, drive_options, statistics   what devices and `-drive` have: places for media
    transactions, internal_snapshots, exports  several changes at once; snapshots in images; NBD
    block_jobs, images                         commit, stream, mirror, backup; making images
    jobs, job_nodes                            the states of jobs; the nodes that one uses
    bitmaps                                    commands about dirty bitmaps
    blocks, reopening                          adding, changing, resizing and deleting nodes
    graph                                      which nodes there are, and when one goes
    persistent_bitmaps, opening                dirty bitmaps in images; opening files
    permissions, node_info, filenames          who may do what to a node; what is told of it
    nodes                                      a node, and what uses it
    qcow2_*, qcow2                             images of that format
    dirty_bitmap, image_locks, throttling      bits; locks of files; limits of throughput

Nobody reads or writes a guest's data: of images there is the metadata.
"""
