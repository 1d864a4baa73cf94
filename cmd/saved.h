/* What a head keeps from one run to the next, in DIR/head.db: the configuration, the applications of
 * programs (those deployed by value with their files), the last configurations of each application that
 * ran, and how many replicas each scaled deployment has. What runs is not in it: the nodes report that.
 *
 * Thread: the control thread. Writing waits for the disk.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/error.h"
#include "core/config/config.h"

#include <jansson.h>

struct rs_records;
struct rs_saved;

/* `values_dir` is where files of applications by value are. With `forget`, what is there is deleted. A
 * file that could not be used is moved aside, which is logged. */
RS_MUST_CHECK int rs_saved_open(struct rs_saved **ret, const char *dir, const char *values_dir,
                                bool forget, struct rs_error *err);
void rs_saved_free(struct rs_saved *s);
RS_DEFINE_AUTO(struct rs_saved *, rs_saved_free);
const char *rs_saved_path(const struct rs_saved *s);
/* Where a file that could not be used was moved to; NULL: it was good, or there was none. */
const char *rs_saved_aside(const struct rs_saved *s);
/* For what others keep there, under kinds of their own; borrowed. */
struct rs_records *rs_saved_records(const struct rs_saved *s);

/* `desired` as rs_controller_desired tells it, with "history": rs_controller_histories. What did not change is not written. 0: it is on the disk.
 * -1: nothing of it is, and the next call tries again. */
RS_MUST_CHECK int rs_saved_write(struct rs_saved *s, const json_t *desired, struct rs_error *err);

struct rs_saved_ops {
    void (*counts)(const json_t *counts, void *arg); /* before the others */
    /* Of one application, as rs_controller_histories tells it; before config and app. */
    void (*history)(const char *name, const json_t *history, void *arg);
    /* Takes `config`. */
    int (*config)(struct rs_config *config, void *arg, struct rs_error *err);
    int (*app)(const char *name, struct rs_config *config, void *arg, struct rs_error *err);
    void (*forecasts)(const json_t *forecasts, void *arg); /* before the others; may be NULL */
    void (*rolls)(const json_t *rolls, void *arg);         /* the same */
};

/* Tells what was kept, and puts the files back. What cannot be restored is logged, and kept. */
void rs_saved_restore(struct rs_saved *s, const struct rs_saved_ops *ops, void *arg);
