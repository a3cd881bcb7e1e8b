// The disagreements that are known, each with its rule. Anything else fails the run.

import type { Verdict } from './verdict.ts'

/** Why we refuse what an oracle accepts: by the beginning of our reason. */
export const STRICTER: readonly (readonly [reason: string, rule: string])[] = [
  // In the head, by Node's parser.
  ['HPE_CR_EXPECTED', '9112 2.2: a line of the head ends with a bare LF'],
  ['HPE_LF_EXPECTED', '9112 2.2: a bare CR in the head'],
  ['HPE_INVALID_HEADER_TOKEN', '9110 5.5, 9112 5.2: a control byte in a field value, or a folded line'],
  ['HPE_INVALID_CONTENT_LENGTH', '9110 8.6, 9112 6.3: a list, a repetition, a tab behind the number, or Transfer-Encoding beside it'],
  ['HPE_UNEXPECTED_CONTENT_LENGTH', '9110 8.6: Content-Length repeated'],
  ['HPE_INVALID_TRANSFER_ENCODING', '9112 6.1: Content-Length beside Transfer-Encoding'],
  // In the framing fields, by us.
  ['Bad message framing: transfer-encoding in HTTP/1.0', '9112 6.1: Transfer-Encoding in HTTP/1.0'],
  ['Bad message framing: transfer-encoding together with content-length', '9112 6.1: Content-Length beside Transfer-Encoding'],
  ['Bad message framing: transfer-encoding is not a list of codings', '9112 6.1: Transfer-Encoding is no list of codings'],
  ['Bad message framing: chunked must be the last transfer coding, once', '9112 6.1: chunked repeated, or not last'],
  ['Transfer coding ', '9112 6.1: a coding we do not have'],
  // In the body, by us.
  ['Malformed chunk: chunk-size is too long', '9112 7.1: more than 16 digits'],
  ['Malformed chunk: CR without LF after chunk-size', '9112 2.2: a bare CR in chunk-ext'],
  ['Malformed chunk: a blank may only surround', '9112 7.1, 7.1.1: blanks before the CRLF'],
  ['Malformed chunk: chunk-ext-name is missing', '9112 7.1.1: malformed chunk-ext'],
  ['Malformed chunk: chunk-ext-val is missing', '9112 7.1.1: malformed chunk-ext'],
  ['Malformed chunk: control byte in a quoted chunk-ext-val', '9112 7.1.1: malformed chunk-ext'],
  ['Malformed chunk: unexpected byte', '9112 7.1.1: malformed chunk-ext'],
  ['Malformed trailer section: bare LF', '9112 2.2: a line of the trailers ends with a bare LF'],
  ['Malformed trailer section: not a field line', '9112 5.1, 5.2: blanks before the colon, a folded line, a control byte'],
  ['Malformed trailer section: "', '9110 6.5.1: a field that may not be a trailer']
]

/** What the printed grammar cannot know. */
export const BEYOND_GRAMMAR: readonly (readonly [reason: string, rule: string])[] = [
  ['Bad message framing: transfer-encoding in HTTP/1.0', '9112 6.1: Transfer-Encoding in HTTP/1.0'],
  ['Malformed chunk: the body is longer than 2^53-1 bytes', '9112 7.1: too large a number'],
  ['Malformed trailer section: "', '9110 6.5.1: a field that may not be a trailer']
]

export interface Difference {
  oracle: string
  rule: string
  /** Whether this is why the oracle does not accept what we do. */
  is: (theirs: Verdict, bytes: string) => boolean
}

const BWS = /[\dA-Fa-f"][ \t]+;|[;=][ \t]+[^\r]|[^\r\n][ \t]+[;=]/
const QUOTED_OR_BWS = new RegExp(`="|${BWS.source}`)
const SEVERAL_HOSTS = /^host:.*^host:/ims

export const DIFFERENCES: readonly Difference[] = [
  // The grammar has these blanks, the oracles do not.
  { oracle: 'node', rule: '9112 7.1.1: BWS or a quoted-string in chunk-ext', is: ({ reason }, bytes) => /^HPE_(STRICT|INVALID_CHUNK_SIZE)$/.test(reason) && QUOTED_OR_BWS.test(bytes) },
  { oracle: 'go', rule: '9112 7.1.1: BWS before chunk-ext', is: ({ reason }, bytes) => reason === 'invalid byte in chunk length' && BWS.test(bytes) },
  { oracle: 'h11', rule: '9112 7.1.1: BWS before chunk-ext', is: ({ reason }, bytes) => reason.startsWith('illegal chunk header: ') && BWS.test(bytes) },
  { oracle: 'node', rule: '9110 5.5: a tab behind the value of Transfer-Encoding', is: ({ reason }, bytes) => reason === 'HPE_INVALID_TRANSFER_ENCODING' && /^transfer-encoding:[ \t]*chunked ?\t[ \t]*\r$/im.test(bytes) },
  { oracle: 'h11', rule: '9110 8.6: more than 20 digits of Content-Length', is: ({ reason }, bytes) => reason === 'bad Content-Length' && /^content-length:[ \t]*0{18}/im.test(bytes) },
  // No matter of the body, and Node's to check.
  { oracle: 'go', rule: '9112 3.2: several Host fields', is: ({ reason }, bytes) => reason === 'HTTP/1.1 400 Bad Request' && SEVERAL_HOSTS.test(bytes) },
  { oracle: 'h11', rule: '9112 3.2: several Host fields', is: ({ reason }, bytes) => reason === 'Found multiple Host: headers' && SEVERAL_HOSTS.test(bytes) },
  { oracle: 'go', rule: '9110 7.2: a malformed Host', is: ({ reason }) => reason === 'HTTP/1.1 400 Bad Request: malformed Host header' }
]
