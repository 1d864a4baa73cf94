/* What happened, the last of it: who, what, from what to what, and why. A ring that is bounded in number
 * and in bytes. Pure: the wall clock is handed in.
 *
 * Repeats:   an event that is like one of the last RS_EVENTS_LOOK_BACK, not older than `window_s`, but for
 *            its replica and the numbers in its text, is no new one: that one is counted up, takes the new
 *            text and moves to the end. So a replica that flaps fills neither the ring nor a disk.
 * Numbers:   `seq` is of the last time that it happened, and the order; `id` is of the first. They rise
 *            for ever: after a restart they go on above (kept.h), with a gap. Who has seen all up to N
 *            asks for what is after N, and sees a repeat as the same `id` with another `seq`.
 * As JSON:   {"id", "seq", "kind", "first_s", "last_s", "count", "app", "deployment", "replica",
 *            "replicas" (of repeats: the last few), "node", "status", "before", "after", "cause", "who",
 *            "text", "data"}; what does not apply is absent.
 * Ownership: everything is copied. Text is cut to RS_EVENTS_TEXT bytes (of a longer one its end stays: it
 *            says most) and made UTF-8; data of more than RS_EVENTS_DATA bytes is left out.
 * Thread:    one.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/list.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    RS_EVENTS_LOOK_BACK = 256,
    RS_EVENTS_TEXT = 2000,
    RS_EVENTS_DATA = 8000,
    RS_EVENTS_REPLICAS = 8, /* that a repeat remembers */
};

struct rs_event {
    const char *kind; /* "scale" */
    const char *app, *deployment, *replica, *node;
    const char *status, *before, *after, *cause, *who, *text;
    const json_t *data;
    bool single; /* never a repeat: an order that somebody gave */
};

struct rs_events_conf {
    size_t max_count; /* 0: 2000 */
    size_t max_bytes; /* as JSON text; 0: 2 MiB */
    double window_s;  /* 0: 600 */
};

/* One of them. Others read it; ring.c and kept.c write it. */
struct rs_events_entry {
    struct rs_list in;
    json_t *j;
    uint64_t id, seq, like; /* like: hash of what repeats share; 0: no repeats */
    double last_s;
    size_t bytes;
    unsigned slot; /* below max_count, of no other entry */
    bool dirty;    /* not on the disk as it is */
    bool repeat;   /* .. but only because it was counted up */
};

struct rs_events {
    struct rs_events_conf conf;
    struct rs_list entries; /* by seq */
    size_t count, bytes;
    uint64_t next;     /* seq of the next one; begins at 1 */
    uint64_t reserved; /* seqs below this are taken, by the disk */
    uint64_t dropped;  /* highest seq of those that made room; 0: none did */
    unsigned char *slots;
    unsigned free_slot;    /* the search begins there */
    unsigned fresh, again; /* dirty entries: new ones, and mere repeats */
};

void rs_events_init(struct rs_events *e, const struct rs_events_conf *conf);
void rs_events_fini(struct rs_events *e);
void rs_events_add(struct rs_events *e, const struct rs_event *event, double wall_s);
static inline uint64_t rs_events_last(const struct rs_events *e) /* seq; 0: nothing yet */
{
    return e->next - 1;
}

/* What is asked for; a NULL filter lets all pass. An event of an application passes the filter
 * `deployment` only if it is that deployment's. */
struct rs_events_ask {
    bool has_after;
    uint64_t after;
    size_t limit; /* 0: 1000 */
    const char *app, *deployment, *replica, *kind;
};

/* Whether list would have an event. */
bool rs_events_any(const struct rs_events *e, const struct rs_events_ask *ask);
/* {"events": [..], "last": where to go on, "more": bool, "lost": bool}: the first `limit` after
 * `after`, or else the last `limit`. "more": some were left out at that end; "lost": what was after
 * `after` is not there any more. A new reference. */
json_t *rs_events_list(const struct rs_events *e, const struct rs_events_ask *ask);

/* For kept.c: an entry as the disk had it (taken). False: it is none, or out of order. */
bool rs_events_restore(struct rs_events *e, json_t *entry, unsigned slot);
