/* Text of others (tracebacks, output, cut errors) made fit for a message: JSON wants valid UTF-8, and
 * a report has a size.
 */
#pragma once

#include <stddef.h>

#define RS_MESSAGE_MAX 8192

/* The end of `text`, at most RS_MESSAGE_MAX bytes of it, as valid UTF-8 without newlines at the end.
 * The caller's; NULL gives NULL. */
char *rs_message_bounded(const char *text);
/* `*text` cut to its last `most` bytes, as above; NULL is fine. */
void rs_message_shorten(char **text, size_t most);
