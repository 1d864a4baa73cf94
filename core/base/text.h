/* UTF-8 text that others wrote, made fit for a place of limited width.
 *
 * Units:  width is columns of a terminal; a wide character takes 2, a combining one 0.
 * Safety: what these write is valid UTF-8 without control characters: a byte that is not UTF-8
 *         becomes U+FFFD, a control character a blank, so no text can steer the terminal.
 */
#pragma once

#include "core/base/buf.h"

#include <stddef.h>
#include <stdint.h>

/* The character at *at (before `end`), which moves behind it; -1 and one byte on if it is not UTF-8.
 */
int32_t rs_utf8_next(const char **at, const char *end);
size_t rs_text_width(const char *text, size_t n);

/* Appends `text`, cut to `width` columns with a final "..." if it is longer. */
void rs_text_fit(struct rs_buf *out, const char *text, size_t width);
/* The same, filled up with blanks to `width`. */
void rs_text_pad(struct rs_buf *out, const char *text, size_t width);
/* Appends `text` broken between words into lines of at most `width` columns, each begun with
 * `indent` blanks and ended with a newline. A line break in the text stays one, and leading blanks
 * of its lines stay; a word longer than a line is broken where the line ends. */
void rs_text_wrap(struct rs_buf *out, const char *text, size_t indent, size_t width);

/* The shortest decimal that reads back as the same number, with a point or an exponent: "0.1", "5.0",
 * "1e+21"; "NaN", "+Inf", "-Inf". Returns `out`. */
enum { RS_DOUBLE_TEXT = 32 };
const char *rs_text_double(double value, char out[RS_DOUBLE_TEXT]);
