// The life of an exchange, from the claim of its request on: every state, every event, and what is to be done. Pure: no socket,
// no timer, no Fastify. Both transports run on it. CONTRIBUTING draws it.

/** The request, as far as this server is concerned. */
export type RequestState =
  /** The client may still send. */
  | 'open'
  /** It was read to its end. */
  | 'complete'
  /** The handler wants nothing more of it. */
  | 'stopped'
  /** Nothing more is read: it is malformed, too long, cut short, or too slow, or the app closes. */
  | 'failed'

export type ResponseState =
  /** Nobody has begun to answer. */
  | 'none'
  /** The exchange has written the head, but no byte was handed to the kernel: it can be taken back. */
  | 'written'
  /** The first byte was handed to the kernel: the point of no return. */
  | 'begun'
  | 'complete'
  /** Fastify answers, as on an ordinary route. */
  | 'from Fastify'

export type ConnectionState =
  /** The exchange lasts. */
  | 'held'
  /** After a complete response: the rest of the request is dropped, and the connection is returned or closed. */
  | 'ending'
  /** Closed in the middle of a response. */
  | 'cut off'
  /** The client has closed it. */
  | 'lost'
  /** It belongs to the user now. */
  | 'detached'

export interface Life {
  readonly request: RequestState
  readonly response: ResponseState
  readonly connection: ConnectionState
  readonly client: 'here' | 'half-closed'
  readonly handler: 'running' | 'returned'
  /** Whether the handler was told to end. */
  readonly goodbye: 'unsaid' | 'said'
}

/** What happens to an exchange. */
export type Event =
  | 'request complete'
  /** It cannot be read any further. */
  | 'request failed'
  /** The handler has called `stopReading()`. */
  | 'reading stopped'
  | 'head written'
  | 'first byte'
  | 'response complete'
  /** Nobody reads the request any more, as `reader-watch.ts` finds it; or the rest of it is lost. */
  | 'reader left'
  /** The stream was destroyed, by the handler or because of an earlier event. */
  | 'stream destroyed'
  /** Its promise is resolved, if it has one. */
  | 'handler returned'
  | 'Fastify answers'
  /** Other code than the exchange has ended the response: Fastify, or a call of `reply.raw.end()`. */
  | 'answered'
  /** An error handler uses `reply.duplex`: Fastify does not answer itself. */
  | 'error handler writes'
  /** The client has ended its side (FIN) behind its request. */
  | 'client half-closed'
  | 'client gone'
  /** No byte has moved for `idleTimeout`. */
  | 'idle'
  /** The client sends, or takes the response, more slowly than `minRate`. */
  | 'too slow'
  /** As `idle`, but this response is not in turn: it cannot be answered. */
  | 'stuck'
  /** The handler has called `reply.hijack()` and then written to the stream: nobody can answer. */
  | 'hijacked'
  | 'app closes'
  /** The exchange is older than `maxAge`. */
  | 'too old'
  /** `closeGrace` is over. Comes again, if the answer to that takes too long. */
  | 'grace over'
  | 'detached'

/** What is to be done, in this order. Each is a method of the exchange. */
export type Order =
  /** Ends the readable side. */
  | 'endRequest'
  /** Destroys the stream with the reason. The handler may answer in its own words; otherwise we answer with the reason. */
  | 'fail'
  /** As `fail`, but whatever the handler does: answers now, or cuts the response off. */
  | 'failNow'
  /** Closes the connection after the answer. */
  | 'refuse'
  | 'abortSignal'
  /** Drops the head and what was written behind it. */
  | 'takeBack'
  /** Answers with the error of the stream, unless the handler does. */
  | 'answer'
  /** Tells Fastify that it does not send the response. */
  | 'hijack'
  /** Watches whether the reader leaves. */
  | 'watchReader'
  /** The end, after our response: onResponse, log line; the rest of the request is dropped. */
  | 'finish'
  /** The end, after the response of other code. */
  | 'finishAnswered'
  /** The end with an error: onError, onResponse, log line. The response is cut off, so that the client can tell. */
  | 'cutOff'
  /** The end for Fastify. The user has the connection. */
  | 'leave'
  /** Tells the handler to end: the app closes, or the exchange is too old. */
  | 'sayGoodbye'
  | 'destroySocket'

type Row = [event: Event, when: Partial<Life>, becomes: Partial<Life>, orders: Order[]]

/** The first row that fits applies. Without a row, an event changes nothing. A row is for connections that are held, unless it says otherwise. */
export const TABLE: readonly Row[] = [
  ['request complete', { request: 'open', response: 'complete' }, { request: 'complete', connection: 'ending' }, ['endRequest', 'finish']],
  ['request complete', { request: 'open' }, { request: 'complete' }, ['endRequest']],
  ['reading stopped', { request: 'open', response: 'complete' }, { request: 'stopped', connection: 'ending' }, ['endRequest', 'finish']],
  ['reading stopped', { request: 'open' }, { request: 'stopped' }, ['endRequest']],
  ['request failed', { request: 'open' }, { request: 'failed' }, ['fail', 'abortSignal']],

  ['head written', { response: 'none' }, { response: 'written' }, []],
  ['first byte', { response: 'written' }, { response: 'begun' }, ['hijack']],
  ['response complete', { response: 'begun', request: 'complete' }, { response: 'complete', connection: 'ending' }, ['finish']],
  ['response complete', { response: 'begun', request: 'stopped' }, { response: 'complete', connection: 'ending' }, ['finish']],
  ['response complete', { response: 'begun', goodbye: 'said' }, { response: 'complete', connection: 'ending' }, ['finish']],
  ['response complete', { response: 'begun' }, { response: 'complete' }, ['watchReader']],
  ['reader left', { response: 'complete' }, { connection: 'ending' }, ['finish']],

  ['handler returned', { response: 'complete' }, { handler: 'returned' }, ['watchReader']],
  ['handler returned', {}, { handler: 'returned' }, []],

  ['stream destroyed', { response: 'none' }, {}, ['answer']],
  ['stream destroyed', { response: 'written' }, { response: 'none' }, ['takeBack', 'answer']],
  ['stream destroyed', { response: 'begun' }, { connection: 'cut off' }, ['cutOff']],
  ['stream destroyed', { response: 'complete', request: 'failed' }, { connection: 'cut off' }, ['cutOff']],
  ['stream destroyed', { response: 'complete' }, { connection: 'ending' }, ['finish']],

  ['Fastify answers', { response: 'none' }, { response: 'from Fastify' }, []],
  ['error handler writes', { response: 'from Fastify', request: 'open' }, { response: 'none', request: 'stopped' }, []],
  ['error handler writes', { response: 'from Fastify' }, { response: 'none' }, []],
  ['error handler writes', { response: 'none', request: 'open' }, { request: 'stopped' }, []],
  ['answered', { response: 'none' }, { connection: 'ending' }, ['finishAnswered']],
  ['answered', { response: 'from Fastify' }, { connection: 'ending' }, ['finishAnswered']],
  ['answered', {}, { connection: 'cut off' }, ['cutOff']],

  ['client half-closed', {}, { client: 'half-closed' }, ['abortSignal']],
  ['client gone', {}, { connection: 'lost' }, ['cutOff']],
  ['idle', { request: 'failed', response: 'none' }, {}, ['failNow']],
  ['idle', { request: 'failed' }, { connection: 'cut off' }, ['cutOff']],
  ['idle', { response: 'none' }, { request: 'failed' }, ['refuse', 'fail', 'abortSignal']],
  ['idle', { response: 'written' }, { request: 'failed' }, ['fail', 'refuse', 'abortSignal']],
  ['idle', {}, { connection: 'cut off' }, ['cutOff']],
  ['too slow', { response: 'none' }, { request: 'failed' }, ['refuse', 'fail', 'abortSignal']],
  ['too slow', { response: 'written' }, { request: 'failed' }, ['fail', 'refuse', 'abortSignal']],
  ['too slow', {}, { connection: 'cut off' }, ['cutOff']],
  ['stuck', {}, { connection: 'cut off' }, ['cutOff']],
  ['hijacked', {}, { connection: 'cut off' }, ['cutOff']],

  ['app closes', { goodbye: 'said' }, {}, []],
  ['app closes', { response: 'complete' }, { goodbye: 'said', connection: 'ending' }, ['sayGoodbye', 'finish']],
  ['app closes', {}, { goodbye: 'said' }, ['sayGoodbye']],
  ['app closes', { connection: 'detached' }, { goodbye: 'said' }, ['sayGoodbye']],
  ['too old', { response: 'complete' }, { goodbye: 'said', connection: 'ending' }, ['sayGoodbye', 'finish']],
  ['too old', {}, { goodbye: 'said' }, ['sayGoodbye']],
  ['grace over', { request: 'failed' }, { connection: 'cut off' }, ['cutOff']],
  ['grace over', { response: 'none' }, { request: 'failed' }, ['refuse', 'failNow']],
  ['grace over', { response: 'written' }, { request: 'failed' }, ['failNow', 'refuse']],
  ['grace over', {}, { connection: 'cut off' }, ['cutOff']],
  ['grace over', { connection: 'detached' }, {}, ['destroySocket']],
  ['detached', {}, { connection: 'detached' }, ['leave']]
]

/** A state with its way on: computed once, so that an event costs one look-up. */
export interface Stage extends Life {
  after (event: Event): { stage: Stage, orders: readonly Order[] }
}

const stages = new Map<string, Stage>()

function stageOf (life: Life): Stage {
  const key = Object.values(life).join()
  let stage = stages.get(key)
  if (stage === undefined) {
    const steps = new Map<Event, { stage: Stage, orders: readonly Order[] }>()
    stage = {
      ...life,
      after (event) {
        let step = steps.get(event)
        if (step === undefined) {
          const row = TABLE.find(([name, when]) => name === event && fits(life, when))
          step = { stage: row === undefined ? this : stageOf({ ...life, ...row[2] }), orders: row?.[3] ?? [] }
          steps.set(event, step)
        }
        return step
      }
    }
    stages.set(key, stage)
  }
  return stage
}

function fits (life: Life, when: Partial<Life>): boolean {
  const { connection = 'held', ...rest } = when
  return life.connection === connection && Object.entries(rest).every(([part, value]) => life[part as keyof Life] === value)
}

/** The request was claimed. */
export const CLAIMED: Stage = stageOf({ request: 'open', response: 'none', connection: 'held', client: 'here', handler: 'running', goodbye: 'unsaid' })
