/* YAML 1.1's implicit types as PyYAML's safe loader knows them: that is what Ray reads files with, so
 * `on` is true, 0o17 is text, 1e3 is text, 017 is fifteen and 1:30 is ninety.
 */
#include "core/base/quantity.h"
#include "core/config/fields.h"
#include "core/config/node.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_one_of(const char *text, const char *const *words)
{
    for (; *words; words++) {
        if (strcmp(text, *words) == 0)
            return true;
    }
    return false;
}

static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
static const char *const trues[] = {"yes",  "Yes", "YES", "true", "True",
                                    "TRUE", "on",  "On",  "ON",   NULL};
static const char *const falses[] = {"no",    "No",  "NO",  "false", "False",
                                     "FALSE", "off", "Off", "OFF",   NULL};
static const char *const infinities[] = {".inf", ".Inf", ".INF", NULL};
static const char *const nans[] = {".nan", ".NaN", ".NAN", NULL};

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return 99;
}

/* Digits of `base` and underscores, at least one digit; adds them up. False: something else, or more
 * than int64_t holds. */
static bool digits(const char *p, int base, int64_t *value)
{
    bool any = false;

    *value = 0;
    for (; *p; p++) {
        if (*p == '_')
            continue;
        if (digit(*p) >= base || __builtin_mul_overflow(*value, base, value) ||
            __builtin_add_overflow(*value, digit(*p), value))
            return false;
        any = true;
    }
    return any;
}

/* 1:30:00: groups below 60 after the first. Up to `end`. */
static bool sexagesimal(const char *p, const char *end, int64_t *value)
{
    int64_t group = 0;
    int len = 0, groups = 0;

    *value = 0;
    if (*p == '_')
        return false;
    for (;; p++) {
        if (p < end && (*p == '_' ? groups == 0 : *p >= '0' && *p <= '9')) {
            if (*p == '_')
                continue;
            if (group > INT64_MAX / 100)
                return false;
            group = group * 10 + (*p - '0');
            len++;
            continue;
        }
        if (len == 0 || (groups > 0 && (len > 2 || group > 59)))
            return false;
        if (__builtin_mul_overflow(*value, 60, value) ||
            __builtin_add_overflow(*value, group, value))
            return false;
        if (p == end)
            return groups > 0;
        if (*p != ':')
            return false;
        group = 0;
        len = 0;
        groups++;
    }
}

static bool yaml_int(const char *text, int64_t *value)
{
    const char *p = text + (*text == '-' || *text == '+');
    bool ok;

    if (*p < '0' || *p > '9')
        return false;
    if (*p == '0' && p[1] == 'b')
        ok = digits(p + 2, 2, value);
    else if (*p == '0' && p[1] == 'x')
        ok = digits(p + 2, 16, value);
    else if (*p == '0' && p[1])
        ok = digits(p, 8, value);
    else if (strchr(p, ':'))
        ok = sexagesimal(p, p + strlen(p), value);
    else
        ok = digits(p, 10, value);
    if (ok && *text == '-')
        *value = -*value;
    return ok;
}

/* Copies without underscores and reads; false if something is left over. */
static bool plain_real(const char *text, double *value)
{
    char copy[64], *end;
    size_t n = 0;

    for (; *text; text++) {
        if (*text == '_')
            continue;
        if (n == sizeof(copy) - 1)
            return false;
        copy[n++] = *text;
    }
    copy[n] = '\0';
    *value = strtod(copy, &end);
    return !*end && n > 0;
}

/* [0-9][0-9_]* . [0-9_]* ([eE][-+][0-9]+)?  or  . [0-9][0-9_]* ([eE][-+][0-9]+)? */
static bool yaml_real_shape(const char *p)
{
    bool lead = *p >= '0' && *p <= '9';

    while (lead && ((*p >= '0' && *p <= '9') || *p == '_'))
        p++;
    if (*p++ != '.' || (!lead && (*p < '0' || *p > '9')))
        return false;
    while ((*p >= '0' && *p <= '9') || *p == '_')
        p++;
    if (*p == 'e' || *p == 'E') {
        p++;
        if ((*p != '-' && *p != '+') || p[1] < '0' || p[1] > '9')
            return false;
        for (p++; *p >= '0' && *p <= '9'; p++)
            ;
    }
    return *p == '\0';
}

static bool yaml_real(const char *text, double *value)
{
    const char *p = text + (*text == '-' || *text == '+');
    const char *point = strchr(p, '.');
    int64_t minutes;
    bool ok = true;

    if (is_one_of(p, infinities)) {
        *value = INFINITY;
    } else if (is_one_of(text, nans)) {
        *value = NAN;
    } else if (yaml_real_shape(p) && (*p != '.' || p == text)) { /* -.5 is text */
        ok = plain_real(p, value);
    } else if (point && strchr(p, ':') && strspn(point + 1, "0123456789_") == strlen(point + 1) &&
               sexagesimal(p, point, &minutes)) {
        ok = strspn(point, "._") == strlen(point) || plain_real(point, value);
        *value = (double)minutes + (strpbrk(point, "0123456789") ? *value : 0);
    } else {
        return false;
    }
    if (*text == '-')
        *value = -*value;
    return ok;
}

/* An integer that int64_t does not hold becomes a real. */
static bool is_decimal(const char *text)
{
    const char *p = text + (*text == '-' || *text == '+');

    return *p >= '1' && *p <= '9' && strspn(p, "0123456789_") == strlen(p);
}

static void set_int(struct rs_node *n, int64_t v)
{
    n->kind = RS_NODE_INT;
    n->integer = v;
    n->real = (double)v;
}

static void set_bool(struct rs_node *n, bool v)
{
    n->kind = RS_NODE_BOOL;
    n->boolean = v;
}

static void resolve_json(struct rs_node *n, const char *text)
{
    char *end;
    long long v;

    if (strcmp(text, "null") == 0) {
        n->kind = RS_NODE_NULL;
        return;
    }
    if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0) {
        set_bool(n, *text == 't');
        return;
    }
    if (*text != '-' && (*text < '0' || *text > '9'))
        return;
    errno = 0;
    v = strtoll(text, &end, 10);
    if (!*end && errno == 0) {
        set_int(n, v);
        return;
    }
    n->real = strtod(text, &end);
    if (!*end)
        n->kind = RS_NODE_REAL;
}

void rs_node_resolve(struct rs_node *n, const char *text, bool json)
{
    int64_t v;

    n->kind = RS_NODE_TEXT;
    n->text = text;
    if (json) {
        resolve_json(n, text);
        return;
    }
    if (is_one_of(text, nulls))
        n->kind = RS_NODE_NULL;
    else if (is_one_of(text, trues))
        set_bool(n, true);
    else if (is_one_of(text, falses))
        set_bool(n, false);
    else if (yaml_int(text, &v))
        set_int(n, v);
    else if (yaml_real(text, &n->real) || (is_decimal(text) && plain_real(text, &n->real)))
        n->kind = RS_NODE_REAL;
}

int64_t rs_config_duration(const json_t *v)
{
    int64_t ns = 0;

    if (json_is_number(v))
        return (int64_t)(json_number_value(v) * 1e9);
    if (!json_is_string(v) ||
        !rs_quantity_read(json_string_value(v), rs_units_duration, false, &ns))
        return 0;
    return ns;
}
