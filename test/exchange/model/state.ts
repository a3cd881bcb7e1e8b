// The model: what each half of the exchange, and everybody who has a hand in it, has done so far. It says which commands are
// possible, and what must hold at the end.

/** How an exchange of one run begins. */
export interface Setup {
  /** `length` and `expect` announce 12 bytes, `longer` 30 000. */
  request: 'none' | 'length' | 'longer' | 'expect' | 'chunked' | 'HTTP/1.0'
  /** Whether the handler returns a promise, returns at once, or is a generator. */
  handler: 'async' | 'sync' | 'generator'
  /** Whether a hook takes a few turns of the event loop before the handler runs. */
  slowHook: boolean
}

export interface Model extends Setup {
  kind: string
  requestBody: 'open' | 'complete' | 'malformed'
  /** Bytes of content that the client has sent. */
  sent: number
  client: 'open' | 'half-closed' | 'gone'
  /** The client had ended its side, or was gone, before its request was complete. */
  isTruncated: boolean
  /** The client has sent another request behind this one. */
  hasPipelined: boolean
  handlerState: 'running' | 'returned' | 'threw'
  /** The handler has used `reply.duplex`. */
  isTouched: boolean
  reading: 'no' | 'loop' | 'leaving' | 'flowing' | 'paused'
  /** `answered`: by `reply.send()` or a returned value. `foreign`: somebody else has ended it. */
  headWasWritten: boolean
  response: 'none' | 'begun' | 'ended' | 'answered' | 'destroyed' | 'foreign'
  /** Nothing has run since the last write, so it was not sent yet. */
  isSameTurn: boolean
  isClosing: boolean
}

/** Bytes of content that the request's head announces. */
export const LENGTHS: Record<Setup['request'], number> = { none: 0, length: 12, longer: 30_000, expect: 12, chunked: 0, 'HTTP/1.0': 12 }

export function newModel (kind: string, setup: Setup): Model {
  return {
    ...setup,
    kind,
    requestBody: setup.request === 'none' ? 'complete' : 'open',
    sent: 0,
    client: 'open',
    isTruncated: false,
    hasPipelined: false,
    handlerState: setup.handler === 'sync' ? 'returned' : 'running',
    isTouched: setup.handler === 'generator',
    reading: 'no',
    headWasWritten: false,
    response: 'none',
    isSameTurn: false,
    isClosing: false
  }
}

/** Whether nobody has done anything for which the response may be cut off, or an error be answered. */
export function isBlameless (model: Model): boolean {
  const { client, kind, isTruncated, requestBody, handlerState, response } = model
  // Node ends its side together with the client's.
  const isGone = client === 'gone' || (client === 'half-closed' && kind === 'fallback')
  return !isGone && !isTruncated && requestBody !== 'malformed' && handlerState !== 'threw' && response !== 'destroyed' && response !== 'foreign'
}
