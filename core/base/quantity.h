/* Numbers with a unit behind them, as people write them: "64K", "1.5GiB", "500ms". */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct rs_unit {
    const char *suffix;
    int64_t factor;
};

/* Tables end with a suffix of NULL. */
extern const struct rs_unit rs_units_size[];     /* bytes: K, KiB.. of 1024, kB.. of 1000 */
extern const struct rs_unit rs_units_duration[]; /* nanoseconds; without a unit: seconds */
extern const struct rs_unit rs_units_one[];

/* Digits, at most 9 decimals, a unit; a minus in front of it all. False, with *ret untouched: `text` is
 * something else, or too large, or has digits below the smallest unit although `exact` is asked for. */
bool rs_quantity_read(const char *text, const struct rs_unit *units, bool exact, int64_t *ret);
