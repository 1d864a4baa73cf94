/* A serving process in the background: forked before it has threads, waited for until it serves.
 *
 * The parent returns when the child has said how it went, so that the exit status of a command that
 * starts one is the truth. A child that nobody waits for any more (Ctrl-C) ends itself.
 */
#pragma once

#include "core/base/error.h"

#include <jansson.h>
#include <stdint.h>

struct rs_background {
    char log[4096]; /* of the child: its own words, and the output of replicas if it echoes them */
    pid_t pid;      /* of the child; in the child 0 */
    int fd;         /* the child's way to its parent; -1: said */
};

/* Forks; the log is BASE/logs/NAME-PID.log. 1 in the child, which has a session of its own, reads from
 * /dev/null and writes to its log. 0 in the parent once the child has said `ready`: *said is a new
 * reference. -1 in the parent: it could not be started, has failed, or was not ready within `timeout` ns
 * and was ended. */
RS_MUST_CHECK int rs_background_start(struct rs_background *b, const char *name, int64_t timeout,
                                      json_t **said, struct rs_error *err);
/* In the child, once. -1: nobody waits. */
RS_MUST_CHECK int rs_background_ready(struct rs_background *b, const json_t *say);
/* In the child: it failed before that. Nothing if it was ready. */
void rs_background_failed(struct rs_background *b, const struct rs_error *err);
