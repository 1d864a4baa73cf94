/* Questions of programs and replicas to the head that have no answer yet. A head that comes back in a
 * moment, as a control plane that this node starts does, is asked again: each of them may be asked twice
 * without harm. From one that is elsewhere they get an error when it goes away.
 *
 * Thread:    the control thread.
 * Ownership: questions are kept by reference.
 */
#pragma once

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

enum { RS_ASKS_MAX = 1000 }; /* more are refused */

struct rs_asks {
    json_t *waiting; /* {"FROM STREAM": {"from", "stream", "ask"}}; NULL: none yet */
};

void rs_asks_fini(struct rs_asks *a);
/* -1: there are too many. */
int rs_asks_put(struct rs_asks *a, json_t *msg);
void rs_asks_answered(struct rs_asks *a, const char *from, uint64_t stream);
/* `fn` may not change them. */
void rs_asks_each(const struct rs_asks *a, void (*fn)(const json_t *msg, void *arg), void *arg);
void rs_asks_clear(struct rs_asks *a);
