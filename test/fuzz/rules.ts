// The known disagreements, each with the rule of RFC 9110 or RFC 9112 that explains it. Any other fails the run.

import type { Message } from './messages.ts'
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
  // Refused by our readers of heads.
  ['Malformed message head: bare LF', '9112 2.2: a line of the head ends with a bare LF'],
  ['Malformed message head: not a request-line', '9112 2.2, 3: whitespace or a bare CR around the parts of the request-line'],
  ['Malformed message head: not a status-line', '9112 4: no blank behind the status, a control byte, or a status that is not 100 to 599'],
  ['Malformed message head: not a request-target', '9112 3.2: a malformed target, or in a form that the method does not have'],
  ['Malformed message head: a 1xx response of HTTP/1.0', '9110 15.2: HTTP/1.0 has no 1xx responses'],
  ['Malformed message head: not a field line', '9110 5.5, 9112 5.1, 5.2: whitespace before the colon, a folded line, or a control byte'],
  ['HTTP/', '9110 15.6.6: neither HTTP/1.0 nor HTTP/1.1'],
  ['The target of a CONNECT request ', '9112 3.2.3: the target of CONNECT is not a host and a port'],
  ['Bad message framing: transfer-encoding in a CONNECT request', '9110 9.3.6: CONNECT with a body'],
  ['Bad message framing: content-length in a CONNECT request', '9110 9.3.6: CONNECT with a body'],
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
  /** Whether this is the reason why the oracle refuses what the plugin accepts, or reads it differently. */
  explains: (theirs: Verdict, message: Message, ours: Verdict) => boolean
}

/** Whether a response has no body, whatever its fields say (RFC 9112 section 6.3). Some readers look at the fields all the same. */
function hasNoBody ({ kind, method }: Message, { head }: Verdict): boolean {
  if (kind !== 'response') return false
  const start = head?.start ?? ''
  return method === 'HEAD' || /^(?:101|204|304) /m.test(start) || (method === 'CONNECT' && /^2/m.test(start))
}

const REPEATED_LENGTH = /^content-length:[ \t]*(\d+)[ \t]*(?:,[ \t]*\1|\r\n(?:.*\r\n)*?content-length:[ \t]*\1\D)/im
const BWS = /[\dA-Fa-f"][ \t]+;|[;=][ \t]+[^\r]|[^\r\n][ \t]+[;=]/
const QUOTED_OR_BWS = new RegExp(`="|${BWS.source}`)

export const DIFFERENCES: readonly Difference[] = [
  // Of heads.
  { oracle: 'go', rule: '9112 2.2: an empty line before the request-line', explains: ({ reason }, { kind, bytes }) => kind === 'request' && reason.startsWith('malformed HTTP request ""') && bytes.startsWith('\r\n') },
  { oracle: 'h11', rule: '9112 2.2: an empty line before the request-line', explains: ({ reason }, { kind, bytes }) => kind === 'request' && reason === 'no request line received' && bytes.startsWith('\r\n') },
  { oracle: 'node', rule: '9110 9.1: a method that Node does not know', explains: ({ reason }) => reason === 'HPE_INVALID_METHOD' },
  { oracle: 'node', rule: '9110 8.6: the same length twice', explains: ({ reason }, { bytes }) => /^HPE_(UNEXPECTED|INVALID)_CONTENT_LENGTH$/.test(reason) && REPEATED_LENGTH.test(bytes) },
  { oracle: 'node', rule: '9110 5.5: a tab after the value of Content-Length', explains: ({ reason }, { bytes }) => reason === 'HPE_INVALID_CONTENT_LENGTH' && /^content-length:[ \t]*\d+ ?\t[ \t]*\r$/im.test(bytes) },
  { oracle: 'go', rule: '9110 8.6: a list of the same length', explains: ({ reason }, { bytes }) => /^(?:bad Content-Length|http: message cannot contain multiple Content-Length)/.test(reason) && REPEATED_LENGTH.test(bytes) },
  { oracle: 'go', rule: '9112 3.2.1: a path with a "%" that clients should encode, and do not', explains: ({ reason }, { kind }) => kind === 'request' && /^parse .*invalid URL escape/.test(reason) },
  { oracle: 'node', rule: '9113 3.4: PRI, with which the preface of HTTP/2 begins, is no method for Node', explains: ({ reason }, { bytes }) => reason === 'HPE_INVALID_VERSION' && /^(?:\r\n)?PRI /.test(bytes) },
  { oracle: 'node', rule: '9112 6.3: the framing fields of a response without a body', explains: ({ reason }, message, ours) => /^HPE_(UNEXPECTED_CONTENT_LENGTH|INVALID_CONTENT_LENGTH|INVALID_TRANSFER_ENCODING)$/.test(reason) && hasNoBody(message, ours) },
  { oracle: 'go', rule: '9112 6.3: the framing fields of a response without a body', explains: ({ reason }, message, ours) => /content-length|transfer encoding/i.test(reason) && hasNoBody(message, ours) },
  { oracle: 'h11', rule: '9112 6.3: the framing fields of a response without a body', explains: ({ reason }, message, ours) => /content-length|transfer-encoding/i.test(reason) && hasNoBody(message, ours) },
  { oracle: 'node', rule: '9112 9.6: an interim response with Connection: close, behind which Node reads nothing', explains: ({ reason }, { kind, bytes }) => kind === 'response' && reason === 'HPE_CLOSED_CONNECTION' && /^HTTP\/1\.1 1\d\d .*\r\n(?:.+\r\n)*?connection:.*close/im.test(bytes) },
  { oracle: 'node', rule: '9110 5.5: a tab after the value of Transfer-Encoding, so that the response is read to the end of the connection', explains: (theirs, { kind, bytes }) => kind === 'response' && theirs.outcome === 'accepted' && /^transfer-encoding:[ \t]*chunked ?\t[ \t]*\r$/im.test(bytes) },
  // The grammar allows this whitespace, but the oracles refuse it.
  { oracle: 'node', rule: '9112 7.1.1: BWS or a quoted-string in chunk-ext', explains: ({ reason }, { bytes }) => /^HPE_(STRICT|INVALID_CHUNK_SIZE)$/.test(reason) && QUOTED_OR_BWS.test(bytes) },
  { oracle: 'go', rule: '9112 7.1.1: BWS before chunk-ext', explains: ({ reason }, { bytes }) => reason === 'invalid byte in chunk length' && BWS.test(bytes) },
  { oracle: 'h11', rule: '9112 7.1.1: BWS before chunk-ext', explains: ({ reason }, { bytes }) => reason.startsWith('illegal chunk header: ') && BWS.test(bytes) },
  { oracle: 'node', rule: '9110 5.5: a tab after the value of Transfer-Encoding', explains: ({ reason }, { bytes }) => reason === 'HPE_INVALID_TRANSFER_ENCODING' && /^transfer-encoding:[ \t]*chunked ?\t[ \t]*\r$/im.test(bytes) },
  { oracle: 'h11', rule: '9110 8.6: more than 20 digits of Content-Length', explains: ({ reason }, { bytes }) => reason === 'bad Content-Length' && /^content-length:[ \t]*0{18}/im.test(bytes) },
  // This rule is about the head, which Node's parser accepts.
  { oracle: 'go', rule: '9110 7.2: a malformed Host', explains: ({ reason }) => reason === 'HTTP/1.1 400 Bad Request: malformed Host header' }
]
