/* Applications that programs deployed by value (rserve/byvalue.py), on nodes other than the head's:
 * before such an application is built, its file is fetched from the head piece by piece.
 *
 * Thread: the control thread.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/error.h"

#include <jansson.h>
#include <stdint.h>

struct rs_values;

struct rs_values_ops {
    /* Ask the head this (an ASK); rs_values_answer brings the answer under the same number. */
    void (*ask)(uint64_t number, const json_t *ask, void *arg);
    /* The file is there, or cannot be had: build. Not called from inside rs_values_hold. */
    void (*ready)(const char *key, const json_t *build, void *arg);
};

/* `dir` is the node's folder of such files. */
struct rs_values *rs_values_new(const char *dir, const struct rs_values_ops *ops, void *arg);
void rs_values_free(struct rs_values *v);
RS_DEFINE_AUTO(struct rs_values *, rs_values_free);

/* true: `build` (a BUILD for the zygote `key`) needs a file that is fetched now; `ready` follows. */
bool rs_values_hold(struct rs_values *v, const char *key, const json_t *build);
void rs_values_answer(struct rs_values *v, uint64_t number, const json_t *answer);
/* The connection to the head is gone: what is under way ends, and is built without its file. */
void rs_values_head_gone(struct rs_values *v);

/* The head's side: {"data": hexadecimal digits, "size": of the whole} from byte `at` on, or NULL with
 * `err`. A new reference. */
json_t *rs_values_read(const char *dir, const char *name, int64_t at, struct rs_error *err);
