/* Rolling a deployment from one version to another: the machine of sched/rollout.h joined to what the
 * controller knows. Old versions are struct rs_ct_deployment of their own, in d->old: with their options,
 * their code, their places and the number that each should have, so that a replica of one can be
 * started again, here and after a restart of the head.
 *
 * Part of the controller: the same rules as in controller.h.
 */
#pragma once

#include "sched/controller-internal.h"

struct rs_ct_board;

/* controller-roll.c */

/* The version `heavy` is wanted from here: what runs is set aside, or an old version comes back. Sets
 * d->heavy, attempt and version. d->conf is given away and NULL; the caller sets another one. */
void rs_ct_roll_turn(struct rs_ct_deployment *d, const char *heavy, unsigned wanted, int64_t now);
/* Facts about the code that runs, for d->code. New. */
json_t *rs_ct_roll_code(const struct rs_ct_app *app);
/* Decides all rolls anew. True: some number of replicas is another one now. */
bool rs_ct_rolls_step(struct rs_controller *c, int64_t now);
int64_t rs_ct_roll_deadline(const struct rs_ct_deployment *d); /* INT64_MAX: none */
/* A node that ran some of it hung up: what it ran counts as there for a while, until it comes back with
 * it, or as many run without it. */
void rs_ct_roll_away(struct rs_ct_deployment *d, int64_t now);
/* Forgets the old versions. */
void rs_ct_roll_drop(struct rs_ct_deployment *d);

/* How many replicas of this version should run now. */
unsigned rs_ct_run(const struct rs_ct_deployment *d);
/* Of a gang, else 1. */
unsigned rs_ct_roll_unit(const struct rs_deployment_conf *conf);
/* All room that old versions take is free in `free` (one for each node of the board), too. */
void rs_ct_roll_give_old(const struct rs_ct_board *b, const struct rs_ct_deployment *d,
                         struct rs_resources *free);

/* For who judges a new version (canary, analysis). False: there is no roll, or it is not paused. */
bool rs_ct_roll_back(struct rs_ct_deployment *d, enum rs_rollout_why why, const char *text,
                     int64_t now);
bool rs_ct_roll_resume(struct rs_ct_deployment *d, int64_t now);

/* controller-canary.c: shares of the requests, and verdicts by figures */

/* Before the rolls are decided. */
void rs_ct_canaries(struct rs_controller *c, int64_t now);
int64_t rs_ct_canary_deadline(const struct rs_ct_deployment *d); /* INT64_MAX: none */
/* A node told what became of the requests of both versions; `before` NULL: it had told nothing. */
void rs_ct_canary_report(struct rs_controller *c, struct rs_report *before,
                         struct rs_report *after);
bool rs_ct_canary_splits(const struct rs_ct_deployment *d);   /* its versions are told apart */
json_t *rs_ct_canary_split(const struct rs_ct_deployment *d); /* for a TARGET. New */
/* What a step waits for, for people. New. */
char *rs_ct_canary_notice(const struct rs_ct_deployment *d);
/* What is measured against what; null: nothing. New. */
json_t *rs_ct_canary_json(const struct rs_ct_deployment *d, int64_t now);
/* What a head that starts anew must know; NULL: nothing. New. */
json_t *rs_ct_canary_keep(const struct rs_ct_deployment *d);
void rs_ct_canary_restore(struct rs_ct_deployment *d, const json_t *kept);
void rs_ct_canary_free(struct rs_ct_deployment *d);

/* controller-roll-view.c */

/* What it waits for, for people; NULL: nothing. New. */
char *rs_ct_roll_notice(const struct rs_ct_deployment *d);
/* Why it stopped, and what to do. New. */
char *rs_ct_roll_verdict(const struct rs_ct_deployment *d, const char *error);
/* What the old version does meanwhile, and how to get out of it: a line that goes after a message. New. */
char *rs_ct_roll_hint(const struct rs_ct_deployment *d);
/* {"phase", "why", "from", "to", "wanted", ..}; null: it never rolled. New. */
json_t *rs_ct_roll_json(const struct rs_ct_deployment *d);
void rs_ct_roll_emit(struct rs_ct_deployment *d, const char *status, const char *text);

/* controller-roll-keep.c */

/* What a head that starts anew must know; NULL: nothing. New. */
json_t *rs_ct_roll_keep(const struct rs_ct_deployment *d);
/* Of a deployment that is made now, before its first replica: takes up what an earlier head kept. */
void rs_ct_roll_restore(struct rs_ct_deployment *d, unsigned wanted, int64_t now);
