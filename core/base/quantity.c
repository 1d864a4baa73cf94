#include "core/base/quantity.h"

#include <stddef.h>
#include <string.h>

const struct rs_unit rs_units_size[] = {
    {"", 1},
    {"K", INT64_C(1) << 10},
    {"M", INT64_C(1) << 20},
    {"G", INT64_C(1) << 30},
    {"T", INT64_C(1) << 40},
    {"KiB", INT64_C(1) << 10},
    {"MiB", INT64_C(1) << 20},
    {"GiB", INT64_C(1) << 30},
    {"TiB", INT64_C(1) << 40},
    {"kB", 1000},
    {"KB", 1000},
    {"MB", 1000000},
    {"GB", 1000000000},
    {"TB", INT64_C(1000000000000)},
    {NULL, 0},
};
const struct rs_unit rs_units_duration[] = {
    {"", 1000000000},
    {"ns", 1},
    {"us", 1000},
    {"ms", 1000000},
    {"s", 1000000000},
    {"m", INT64_C(60000000000)},
    {"h", INT64_C(3600000000000)},
    {"d", INT64_C(86400000000000)},
    {NULL, 0},
};
const struct rs_unit rs_units_one[] = {{"", 1}, {NULL, 0}};

static const struct rs_unit *find_unit(const struct rs_unit *units, const char *suffix)
{
    for (; units->suffix; units++)
        if (strcmp(units->suffix, suffix) == 0)
            return units;
    return NULL;
}

bool rs_quantity_read(const char *text, const struct rs_unit *units, bool exact, int64_t *ret)
{
    int64_t whole = 0, part = 0, scale = 1;
    bool negative = *text == '-';
    const struct rs_unit *unit;

    if (negative)
        text++;
    if (*text < '0' || *text > '9')
        return false;
    for (; *text >= '0' && *text <= '9'; text++)
        if (__builtin_mul_overflow(whole, 10, &whole) ||
            __builtin_add_overflow(whole, *text - '0', &whole))
            return false;
    if (*text == '.') {
        if (*++text < '0' || *text > '9')
            return false;
        for (; *text >= '0' && *text <= '9'; text++, scale *= 10) {
            if (scale >= 1000000000)
                return false;
            part = part * 10 + (*text - '0');
        }
    }
    unit = find_unit(units, text);
    if (!unit || __builtin_mul_overflow(whole, unit->factor, &whole) ||
        __builtin_mul_overflow(part, unit->factor, &part) || (exact && part % scale != 0) ||
        __builtin_add_overflow(whole, part / scale, &whole))
        return false;
    *ret = negative ? -whole : whole;
    return true;
}
