/* What the files that place share: controller-place.c (replicas, actors, workers), controller-place-group.c
 * (placement groups), controller-unit.c (replicas that have a placement group).
 *
 * Part of the controller: the same rules as in controller.h.
 */
#pragma once

#include "sched/controller-core.h"

/* What is free on each node, during one round. */
struct rs_ct_board {
    struct rs_ct_node **nodes;
    struct rs_resources *free;
    unsigned *all; /* replicas of all deployments */
    size_t n;
    bool dry; /* for a plan: nothing is told of it */
};

/* controller-place.c */
/* What it costs to give up a replica that runs: least if it is idle, more with models, most at work. */
unsigned rs_ct_cost_of(const struct rs_report_replica *r);

/* controller-adopt.c */
/* What nodes that joined run of it takes the places in which nothing runs yet. */
void rs_ct_adopt(struct rs_ct_board *b, struct rs_ct_deployment *d);

/* controller-place-group.c */
void rs_ct_board_init(struct rs_ct_board *b, const struct rs_controller *c);
void rs_ct_board_fini(struct rs_ct_board *b);
size_t rs_ct_board_index(const struct rs_ct_board *b, const struct rs_ct_node *node);
/* Takes the room of the bundles that have a node. */
void rs_ct_keep_bundles(struct rs_ct_board *b, struct rs_ct_group *g);
/* All missing bundles find room, or none does and g->why says why not. */
bool rs_ct_place_group(struct rs_ct_board *b, struct rs_ct_group *g);
/* Those that programs made. */
void rs_ct_place_groups(struct rs_ct_board *b, const struct rs_controller *c);

/* controller-place.c; of a deployment without placement groups */
/* What is placed takes its room, as far as it may stay. */
void rs_ct_place_keep(struct rs_ct_board *b, const struct rs_controller *c,
                      struct rs_ct_deployment *d);
/* What is missing finds room, or d->blocked says why not. */
void rs_ct_place_missing(struct rs_ct_board *b, const struct rs_controller *c,
                         struct rs_ct_deployment *d);

/* controller-unit.c */
/* So many more units with d->conf find room on the board, which then lacks it; at most `n`. `why` (may
 * be NULL) tells why not all of them do. Nothing else changes. */
unsigned rs_ct_units_try(struct rs_ct_board *b, const struct rs_ct_deployment *d, unsigned n,
                         unsigned *on_node, char **why);
/* What the reports say of the units: those with a lost member end, those that have ended are
 * forgotten with their placement group. Before anything is placed. */
void rs_ct_units_update(struct rs_controller *c);
/* Their replicas take their part of the bundles. */
void rs_ct_units_keep(struct rs_ct_board *b, struct rs_ct_deployment *d);
/* Too many end, missing ones are made, a new version takes the place of the old one. */
void rs_ct_units_place(struct rs_ct_board *b, struct rs_ct_deployment *d);
