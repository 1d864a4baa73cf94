#include "net/http/wishes.h"

#include "core/base/clock.h"

/* -1: it is no number, or too long a one. */
static int64_t digits(const char *value, size_t len, size_t max)
{
    int64_t n = 0;

    if (!len || len > max)
        return -1;
    for (size_t i = 0; i < len; i++) {
        if (value[i] < '0' || value[i] > '9')
            return -1;
        n = n * 10 + (value[i] - '0');
    }
    return n;
}

int64_t rs_http_timeout_ms(const char *value, size_t len)
{
    int64_t n = digits(value, len, 12); /* 31 years */

    return n > 0 ? n * RS_MS : 0;
}

int64_t rs_http_timeout_grpc(const char *value, size_t len)
{
    int64_t n = len ? digits(value, len - 1, 8) : -1;

    if (n <= 0)
        return 0;
    switch (value[len - 1]) {
    case 'H':
        return n > INT64_MAX / (3600 * RS_SEC) ? 0 : n * 3600 * RS_SEC;
    case 'M':
        return n * 60 * RS_SEC;
    case 'S':
        return n * RS_SEC;
    case 'm':
        return n * RS_MS;
    case 'u':
        return n * RS_US;
    case 'n':
        return n;
    default:
        return 0;
    }
}

int rs_http_priority(const char *value, size_t len)
{
    return len == 1 && value[0] >= '0' && value[0] <= '9' ? value[0] - '0' : -1;
}

int64_t rs_http_sooner(int64_t a, int64_t b)
{
    if (!a || !b)
        return a ? a : b;
    return a < b ? a : b;
}
