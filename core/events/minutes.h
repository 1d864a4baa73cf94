/* Counts by name in each of the last minutes: how many requests were refused, and why. Pure: the wall
 * clock is handed in.
 *
 * Bounds:    RS_MINUTES minutes, the present one included; RS_MINUTES_NAMES names, further ones are
 *            counted as "other".
 * Ownership: {0} is valid and empty; rs_minutes_fini.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum { RS_MINUTES = 10, RS_MINUTES_NAMES = 24, RS_MINUTES_NAME = 32 };

struct rs_minutes {
    int64_t now; /* the newest minute, since 1970 */
    struct {
        char name[RS_MINUTES_NAME];
        uint64_t n[RS_MINUTES]; /* of minute m at m % RS_MINUTES */
    } * rows;
    unsigned count, cap;
};

void rs_minutes_fini(struct rs_minutes *m);
void rs_minutes_add(struct rs_minutes *m, const char *name, uint64_t n, double wall_s);
/* {NAME: {"total": all of them, "minutes": [oldest, .., this one]}}, without those that have none; a
 * new reference. */
json_t *rs_minutes_json(const struct rs_minutes *m, double wall_s);
