// The known disagreements, each with the rule of RFC 9110 or RFC 9112 that explains it. Any other fails the run.

import type { Verdict } from './verdict.ts'

/** Where the plugin may refuse what an oracle accepts: how its reason begins, and the rule. */
export const STRICTER: readonly (readonly [reason: string, rule: string])[] = [
  // Refused by Node's parser in the head.
  ['HPE_CR_EXPECTED', '9112 2.2: a line of the head ends with a bare LF'],
  ['HPE_LF_EXPECTED', '9112 2.2: a bare CR in the head'],
  ['HPE_INVALID_HEADER_TOKEN', '9110 5.5, 9112 5.2: a control byte in a field value, or a folded line'],
  ['HPE_INVALID_CONTENT_LENGTH', '9110 8.6, 9112 6.3: a list, a repetition, a tab after the number, or Transfer-Encoding together with it'],
  ['HPE_UNEXPECTED_CONTENT_LENGTH', '9110 8.6: Content-Length repeated'],
  ['HPE_INVALID_TRANSFER_ENCODING', '9112 6.1: Content-Length together with Transfer-Encoding'],
  // Refused by the plugin in the head.
  ['Bad Host field: ', '9112 3.2: several Host fields, none, or a malformed one'],
  ['Bad message framing: transfer-encoding in HTTP/1.0', '9112 6.1: Transfer-Encoding in HTTP/1.0'],
  ['Bad message framing: transfer-encoding together with content-length', '9112 6.1: Content-Length together with Transfer-Encoding'],
  ['Bad message framing: transfer-encoding is not a list of codings', '9112 6.1: Transfer-Encoding is not a list of codings'],
  ['Bad message framing: chunked must be the last transfer coding, once', '9112 6.1: chunked is repeated, or not last'],
  ['Transfer coding ', '9112 6.1: a coding that the plugin does not implement'],
  // Refused by the plugin in the body.
  ['Malformed chunk: chunk-size is too long', '9112 7.1: more than 16 digits'],
  ['Malformed chunk: CR without LF after chunk-size', '9112 2.2: a bare CR in chunk-ext'],
  ['Malformed chunk: a blank may only surround', '9112 7.1, 7.1.1: whitespace before the CRLF'],
  ['Malformed chunk: chunk-ext-name is missing', '9112 7.1.1: malformed chunk-ext'],
  ['Malformed chunk: chunk-ext-val is missing', '9112 7.1.1: malformed chunk-ext'],
  ['Malformed chunk: control byte in a quoted chunk-ext-val', '9112 7.1.1: malformed chunk-ext'],
  ['Malformed chunk: unexpected byte', '9112 7.1.1: malformed chunk-ext'],
  ['Malformed trailer section: bare LF', '9112 2.2: a line of the trailers ends with a bare LF'],
  ['Malformed trailer section: not a field line', '9112 5.1, 5.2: whitespace before the colon, a folded line, or a control byte'],
  ['Malformed trailer section: "', '9110 6.5.1: a field that may not be a trailer']
]

/** Where the plugin may refuse what the printed grammar accepts, because the grammar cannot express the rule. */
export const BEYOND_GRAMMAR: readonly (readonly [reason: string, rule: string])[] = [
  ['Bad Host field: ', '9112 3.2: several Host fields, none, or a malformed one'],
  ['Bad message framing: transfer-encoding in HTTP/1.0', '9112 6.1: Transfer-Encoding in HTTP/1.0'],
  ['Malformed chunk: the body is longer than 2^53-1 bytes', '9112 7.1: too large a number'],
  ['Malformed trailer section: "', '9110 6.5.1: a field that may not be a trailer']
]

export interface Difference {
  oracle: string
  rule: string
  /** Whether this is the reason why the oracle refuses what the plugin accepts. */
  explains: (theirs: Verdict, bytes: string) => boolean
}

const BWS = /[\dA-Fa-f"][ \t]+;|[;=][ \t]+[^\r]|[^\r\n][ \t]+[;=]/
const QUOTED_OR_BWS = new RegExp(`="|${BWS.source}`)

export const DIFFERENCES: readonly Difference[] = [
  // The grammar allows this whitespace, but the oracles refuse it.
  { oracle: 'node', rule: '9112 7.1.1: BWS or a quoted-string in chunk-ext', explains: ({ reason }, bytes) => /^HPE_(STRICT|INVALID_CHUNK_SIZE)$/.test(reason) && QUOTED_OR_BWS.test(bytes) },
  { oracle: 'go', rule: '9112 7.1.1: BWS before chunk-ext', explains: ({ reason }, bytes) => reason === 'invalid byte in chunk length' && BWS.test(bytes) },
  { oracle: 'h11', rule: '9112 7.1.1: BWS before chunk-ext', explains: ({ reason }, bytes) => reason.startsWith('illegal chunk header: ') && BWS.test(bytes) },
  { oracle: 'node', rule: '9110 5.5: a tab after the value of Transfer-Encoding', explains: ({ reason }, bytes) => reason === 'HPE_INVALID_TRANSFER_ENCODING' && /^transfer-encoding:[ \t]*chunked ?\t[ \t]*\r$/im.test(bytes) },
  { oracle: 'h11', rule: '9110 8.6: more than 20 digits of Content-Length', explains: ({ reason }, bytes) => reason === 'bad Content-Length' && /^content-length:[ \t]*0{18}/im.test(bytes) },
  // This rule is about the head, which Node's parser accepts.
  { oracle: 'go', rule: '9110 7.2: a malformed Host', explains: ({ reason }) => reason === 'HTTP/1.1 400 Bad Request: malformed Host header' }
]
