#include "core/base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* One line whatever the input was: control characters become blanks. */
static void flatten(char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < ' ')
            *text = ' ';
    }
}

int rs_error_set(struct rs_error *err, enum rs_errc code, const char *fmt, ...)
{
    va_list args;

    if (!err)
        return -1;
    err->code = code;
    err->sys_errno = 0;
    va_start(args, fmt);
    vsnprintf(err->msg, sizeof(err->msg), fmt, args);
    va_end(args);
    flatten(err->msg);
    return -1;
}

int rs_error_errno(struct rs_error *err, int sys_errno, const char *fmt, ...)
{
    va_list args;
    size_t used;

    if (!err)
        return -1;
    err->code = RS_SYSTEM;
    err->sys_errno = sys_errno;
    va_start(args, fmt);
    vsnprintf(err->msg, sizeof(err->msg), fmt, args);
    va_end(args);
    used = strlen(err->msg);
    snprintf(err->msg + used, sizeof(err->msg) - used, ": %s", strerror(sys_errno));
    flatten(err->msg);
    return -1;
}

int rs_error_wrap(struct rs_error *err, const char *fmt, ...)
{
    char old[sizeof(err->msg)];
    va_list args;
    size_t used;

    if (!err)
        return -1;
    memcpy(old, err->msg, sizeof(old));
    va_start(args, fmt);
    vsnprintf(err->msg, sizeof(err->msg), fmt, args);
    va_end(args);
    used = strlen(err->msg);
    snprintf(err->msg + used, sizeof(err->msg) - used, ": %s", old);
    flatten(err->msg);
    return -1;
}
