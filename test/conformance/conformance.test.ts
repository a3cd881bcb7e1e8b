// What RFC 9112 and RFC 9110 say about messages, row by row of the tables in conformance/: through the pure readers, and
// through live servers, with a request behind each that is answered where the connection goes on, and must not be where
// it does not. Takes some 15 s.

import t from 'tap'
import { once } from 'node:events'
import { PassThrough } from 'node:stream'
import { isDeepStrictEqual } from 'node:util'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import duplex from '../../lib/index.ts'
import { bodyReader, receivedFraming, requestFraming } from '../../lib/transfer/framing.ts'
import { type RequestHead, RequestHeadReader, ResponseHeadReader } from '../../lib/transfer/head-reader.ts'
import { type Read, byteByByte, feed, segmentations, splitAt, whole } from '../support/feed.ts'
import { MAX_HEAD_SIZE, requestHeads } from './request-heads.ts'
import { type Accepted, LIMITS, type Refused, requests } from './requests.ts'
import { responses } from './responses.ts'
import { type Answer, type Talk, inMemory, overTcp } from './talk.ts'

/** What follows every request: answered by an ordinary route, so that the connection must have been given back. */
const NEXT = 'GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'
const OK_NEXT = 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext'

const headSize = (bytes: string): number => bytes.indexOf('\r\n\r\n') + 4

// The pure readers

interface Request extends Read { head: RequestHead | null }

/** Reads one request: its head, and then its body. */
function readRequest (pieces: Buffer[], end = false): Request {
  const headReader = new RequestHeadReader(MAX_HEAD_SIZE)
  const failed = (error: Error | null): Request =>
    ({ head: headReader.head, content: '', trailers: {}, code: codeOf(error), done: false, rest: '' })
  for (let i = 0; i < pieces.length; i++) {
    headReader.read(pieces[i])
    const { head, error, consumed } = headReader
    if (error !== null) return failed(error)
    if (head === null) continue
    try {
      const reader = bodyReader(requestFraming(head.fields, head.minorVersion), LIMITS)
      return { head, ...feed(reader, [pieces[i].subarray(consumed), ...pieces.slice(i + 1)], end) }
    } catch (error) {
      return failed(error as Error)
    }
  }
  if (end) headReader.end()
  return failed(headReader.error)
}

const codeOf = (error: Error | null): string | null => (error as { code?: string } | null)?.code ?? null

t.test('requests, through the pure readers', async (t) => {
  for (const [rule, name, bytes, outcome] of requests) {
    const title = `${rule} ${name}`
    const size = headSize(bytes)
    const [method] = bytes.split(' ', 1)
    if (outcome.accepted || outcome.ours === null) {
      const { content, trailers } = outcome.accepted ? outcome : { content: 'hello', trailers: {} }
      const expected: Read = { content, trailers, code: null, done: true, rest: NEXT }
      // Every split of the body. The heads have a table of their own.
      const reads = segmentations(bytes + NEXT, size).map((pieces) => readRequest(pieces))
      t.strictSame(reads.filter(({ head, ...read }) => head?.method !== method || !isDeepStrictEqual(read, expected)), [], title)
      for (let cut = size; cut < bytes.length; cut++) {
        const { code, done } = readRequest(whole(bytes.slice(0, cut)), true)
        if (done || code !== 'FST_ERR_DUPLEX_TRUNCATED') t.fail(`${title}, cut after ${cut} bytes: ${code}`)
      }
    } else {
      const reads = segmentations(bytes).map((pieces) => readRequest(pieces)).map(({ code, done, content }) => ({ code, done, content }))
      t.match(reads[0], { code: outcome.ours ?? outcome.code, done: false }, title)
      t.strictSame(reads.filter((read) => !isDeepStrictEqual(read, reads[0])), [], `${title}: the same however it is cut`)
    }
  }
})

t.test('heads of requests, through the pure reader', async (t) => {
  for (const [rule, name, bytes, outcome] of requestHeads) {
    const title = `${rule} ${name}`
    if (outcome.accepted) {
      const { accepted, fields, ...expected } = outcome
      const reads = segmentations(bytes + NEXT).map((pieces) => readRequest(pieces))
      t.match(reads[0], { head: expected, rest: NEXT, done: true }, title)
      t.strictSame(reads.filter((read) => !isDeepStrictEqual(read, reads[0])), [], `${title}: the same however it is cut`)
      if (fields !== undefined) t.strictSame({ ...reads[0].head!.fields }, fields)
      const begins = bytes.startsWith('\r\n') ? 2 : 0
      for (let cut = 0; cut < bytes.length; cut++) {
        const { head, code } = readRequest(whole(bytes.slice(0, cut)), true)
        // Before the first byte of a request, the connection may end.
        const isBetween = cut === 0 || cut === begins
        if (head !== null || code !== (isBetween ? null : 'FST_ERR_DUPLEX_TRUNCATED')) t.fail(`${title}, cut after ${cut} bytes: ${code}`)
      }
    } else {
      const reads = segmentations(bytes + NEXT).map((pieces) => readRequest(pieces))
      t.match(reads[0], { head: null, code: outcome.code, done: false, content: '' }, title)
      t.strictSame(reads.filter((read) => !isDeepStrictEqual(read, reads[0])), [], `${title}: the same however it is cut`)
    }
  }
})

interface Response extends Read { statuses: number[] }

/** Reads one response and the interim ones before it. */
function readResponse (method: string, pieces: Buffer[], end = false): Response {
  const statuses: number[] = []
  let headReader = new ResponseHeadReader(MAX_HEAD_SIZE)
  const failed = (error: Error | null): Response =>
    ({ statuses, content: '', trailers: {}, code: codeOf(error), done: false, rest: '' })
  for (let i = 0; i < pieces.length; i++) {
    let piece = pieces[i]
    while (piece.length > 0) {
      headReader.read(piece)
      if (headReader.error !== null) return failed(headReader.error)
      piece = piece.subarray(headReader.consumed)
      const { head } = headReader
      if (head === null) continue
      statuses.push(head.statusCode)
      if (head.statusCode < 200) {
        headReader = new ResponseHeadReader(MAX_HEAD_SIZE)
        continue
      }
      try {
        const reader = bodyReader(receivedFraming(method, head.statusCode, head.fields, head.minorVersion), LIMITS)
        return { statuses, ...feed(reader, [piece, ...pieces.slice(i + 1)], end) }
      } catch (error) {
        return failed(error as Error)
      }
    }
  }
  if (end) headReader.end()
  return failed(headReader.error)
}

t.test('responses, through the pure readers', async (t) => {
  for (const [rule, name, method, bytes, outcome] of responses) {
    const title = `${rule} ${name}`
    if (outcome.accepted) {
      const { statuses, content, trailers, ends } = outcome
      const next = ends === 'itself' ? OK_NEXT : ''
      const expected: Response = { statuses, content, trailers, code: null, done: true, rest: next }
      const wrong = segmentations(bytes + next).map((pieces) => readResponse(method, pieces, true)).filter((read) => !isDeepStrictEqual(read, expected))
      t.strictSame(wrong, [], title)
      const heads = bytes.lastIndexOf('HTTP/1.') + headSize(bytes.slice(bytes.lastIndexOf('HTTP/1.')))
      for (let size = 0; size < bytes.length; size++) {
        const { code, done } = readResponse(method, whole(bytes.slice(0, size)), true)
        const complete = ends === 'connection' && size >= heads
        if (done !== complete || code !== (complete ? null : 'FST_ERR_DUPLEX_TRUNCATED')) t.fail(`${title}, cut after ${size} bytes: ${code}`)
      }
    } else {
      const reads = segmentations(bytes).map((pieces) => readResponse(method, pieces))
      t.match(reads[0], { code: outcome.code, done: false }, title)
      t.strictSame(reads.filter((read) => !isDeepStrictEqual(read, reads[0])), [], `${title}: the same however it is cut`)
    }
  }
})

// Live

interface Subject {
  name: string
  talk: Talk
  /** Whether the head of the response goes out before the request has been read. */
  early: boolean
  /** The first place at which a request is split in two. */
  firstSplit: (bytes: string, accepted: boolean) => number
  /** Requests that a refused one has smuggled in, or that followed one after which the connection must close. */
  smuggled: number
}

/** Reads the whole request, and answers with what it was. What is wrong with it is answered by Fastify. */
async function answerAfter ({ headers }: FastifyRequest, { duplex }: FastifyReply): Promise<object> {
  let content = ''
  for await (const piece of duplex) content += piece.toString('latin1')
  return { framing: duplex.framing.request, content, trailers: duplex.trailers, fields: Object.keys(headers) }
}

/** Answers at once, with the content and the trailers as they come. What is wrong with the request cuts off the response. */
async function answerMeanwhile (_request: FastifyRequest, { duplex }: FastifyReply): Promise<void> {
  duplex.flushHeaders()
  for await (const piece of duplex) duplex.write(piece)
  if (duplex.framing.response === 'chunked') duplex.setTrailers(duplex.trailers)
  duplex.end()
}

/** An ordinary answer that has begun, and promised to keep the connection, when the request turns out to be wrong. */
async function answerOrdinarily (_request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const answer = new PassThrough()
  const { duplex } = reply
  duplex.once('data', () => {
    reply.send(answer)
    answer.write('begun')
    duplex.on('error', () => answer.end())
  })
  await once(answer, 'end')
  return reply
}

async function serve (handler: (request: FastifyRequest, reply: FastifyReply) => Promise<unknown>, count: () => void): Promise<FastifyInstance> {
  const app = Fastify({ forceCloseConnections: true })
  t.teardown(() => app.close())
  await app.register(duplex, { ...LIMITS, closeGrace: 0, drainTimeout: 60_000 })
  app.route({ method: ['GET', 'POST', 'DELETE', 'OPTIONS'], url: '/', duplex: true, handler })
  app.get('/next', async () => {
    count()
    return 'next'
  })
  app.get('/smuggled', async () => count())
  await app.listen({ host: '127.0.0.1', port: 0 })
  return app
}

async function subjects (): Promise<Subject[]> {
  const list: Subject[] = []
  for (const [when, handler] of [['after', answerAfter], ['meanwhile', answerMeanwhile]] as const) {
    for (const [where, connect] of [['TCP', overTcp], ['memory', inMemory]] as const) {
      // Every split of what is accepted, and of the body of what is refused; once more over TCP, of accepted bodies.
      const firstSplit = (bytes: string, accepted: boolean): number => {
        if (when === 'meanwhile' && where === 'memory') return accepted ? 1 : headSize(bytes)
        return when === 'after' && where === 'TCP' && accepted ? headSize(bytes) : Infinity
      }
      const subject: Subject = { name: `answered ${when}, over ${where}`, talk: async () => [], early: handler === answerMeanwhile, firstSplit, smuggled: 0 }
      subject.talk = connect(await serve(handler, () => { subject.smuggled++ }))
      list.push(subject)
    }
  }
  return list
}

const isOld = (bytes: string): boolean => bytes.includes('HTTP/1.0\r\n')

/** The answer to an accepted request. */
function expectedAnswer (bytes: string, { framing, content, trailers, interim }: Accepted, early: boolean): Answer {
  if (early) return { status: 200, interim: [], content, trailers: isOld(bytes) ? {} : trailers, complete: true }
  const fields = bytes.slice(0, headSize(bytes) - 4).split('\r\n').slice(1).map((line) => line.slice(0, line.indexOf(':')).toLowerCase())
  return { status: 200, interim, content: JSON.stringify({ framing, content, trailers, fields: [...new Set(fields)] }), trailers: {}, complete: true }
}

/** In ordinary answers the content is JSON, in UTF-8; in order, to be compared. */
const decoded = (answers: Answer[], early: boolean): Answer[] =>
  early ? answers : answers.map((answer) => ({ ...answer, content: Buffer.from(answer.content, 'latin1').toString() }))

const NEXT_ANSWER: Answer = { status: 200, interim: [], content: 'next', trailers: {}, complete: true }

async function runAccepted (subject: Subject, bytes: string, outcome: Accepted): Promise<unknown[]> {
  const { early, talk, firstSplit } = subject
  // Without its length, a response to HTTP/1.0 ends with the connection. And once it has begun without a 100, nobody
  // knows whether the body will come.
  const persistent = outcome.persistent && !(early && (isOld(bytes) || outcome.interim.length > 0))
  const expected = [expectedAnswer(bytes, outcome, early), ...(persistent ? [NEXT_ANSWER] : [])]
  const cuts = segmentations(bytes + NEXT, firstSplit(bytes, true), bytes.length)
  const results = await Promise.all(cuts.map(async (pieces) => decoded(await talk(pieces), early)))
  results.push(decoded(await talk(whole(bytes + NEXT), true), early)) // and the client's side ended
  if (persistent) subject.smuggled -= results.length
  return results.filter((answers) => !isDeepStrictEqual(answers, expected))
}

async function runRefused ({ early, talk, firstSplit }: Subject, bytes: string, outcome: Refused): Promise<unknown[]> {
  const cuts = segmentations(bytes + NEXT, firstSplit(bytes, false), bytes.length)
  const results = await Promise.all(cuts.map((pieces) => talk(pieces)))
  return results.filter((answers) => !isRefusal(answers, outcome, early))
}

const OF_THE_HEAD: ReadonlySet<string> = new Set(['FST_ERR_DUPLEX_FRAMING', 'FST_ERR_DUPLEX_TRANSFER_CODING'])

/** The one answer that says so; or one that began too early to say so, and is cut off. */
function isRefusal (answers: Answer[], { status, code }: Refused, early: boolean): boolean {
  if (early && answers.length === 0) return true // lost in the reset
  if (answers.length !== 1) return false
  const [answer] = answers
  if (early && answer.status === 200) return !answer.complete
  if (!answer.complete) return false
  const own: string | undefined = JSON.parse(answer.content).code
  // Node's parser refuses many a head before us; which, depends on its version.
  if (own === undefined) return answer.status === 400 && (code === null || OF_THE_HEAD.has(code))
  return answer.status === status && own === code
}

t.test('requests, live', async (t) => {
  const all = await subjects()
  for (const subject of all) {
    await t.test(subject.name, async (t) => {
      for (const [rule, name, bytes, outcome] of requests) {
        const wrong = outcome.accepted
          ? await runAccepted(subject, bytes, outcome)
          : await runRefused(subject, bytes, outcome)
        t.strictSame(wrong.slice(0, 3), [], `${rule} ${name}`)
      }
      t.equal(subject.smuggled, 0, 'nothing was answered that must not be')
    })
  }

  await t.test('9112 9.3.2: several requests on one connection', async (t) => {
    const several = requests.filter(([, , bytes, { accepted }]) => accepted && !isOld(bytes)) as [string, string, string, Accepted][]
    for (const { talk, early, name } of all) {
      const stay = several.filter(([, , , { persistent, interim }]) => persistent && !(early && interim.length > 0))
      const bytes = stay.map(([, , bytes]) => bytes).join('') + NEXT
      const expected = [...stay.map(([, , bytes, outcome]) => expectedAnswer(bytes, outcome, early)), NEXT_ANSWER]
      for (const pieces of [whole(bytes), byteByByte(bytes), splitAt(bytes, bytes.length / 2)]) {
        t.strictSame(decoded(await talk(pieces), early), expected, name)
      }
      // RFC 9112 section 2.2: an empty line before a request, which old clients add to a body, is ignored.
      const [[, , one, outcome]] = stay
      t.strictSame(decoded(await talk(byteByByte(one + '\r\n' + NEXT)), early), [expectedAnswer(one, outcome, early), NEXT_ANSWER])
    }
    all.forEach((subject) => { subject.smuggled -= 4 })
  })

  await t.test('9112 9.3: what is wrong with a request after its answer has begun ends the connection behind the answer', async (t) => {
    let smuggled = 0
    const app = await serve(answerOrdinarily, () => { smuggled++ })
    for (const talk of [overTcp(app), inMemory(app)]) {
      const pieces = ['POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n', '5\n', NEXT]
      t.match(await talk(pieces.flatMap(whole)), [{ status: 200, content: 'begun', complete: true }])
      t.equal(smuggled, 0)
    }
  })

  await t.test('9112 8: cut off at every byte', async (t) => {
    for (const { talk, early } of [all[0], all[3]]) {
      for (const [rule, name, bytes, outcome] of requests) {
        if (!outcome.accepted) continue
        const wrong: unknown[] = []
        // Node's part, the head, once.
        const first = early ? 0 : headSize(bytes)
        await Promise.all(Array.from({ length: bytes.length - first }, async (_, i) => {
          const size = first + i
          const answers = await talk(whole(bytes.slice(0, size)), true)
          const refusal = { accepted: false, status: 400, code: size < headSize(bytes) ? null : 'FST_ERR_DUPLEX_TRUNCATED' } as const
          if (size === 0 ? answers.length > 0 : !isRefusal(answers, refusal, early)) wrong.push({ size, answers })
        }))
        t.strictSame(wrong, [], `${rule} ${name}`)
      }
    }
    t.strictSame(all.map(({ smuggled }) => smuggled), [0, 0, 0, 0])
  })
})
