// An HTTP/1 client that plays a case: it sends bytes, and then does something to its connection.

import type { Case } from './case.ts'
import { Connection, type Dial, pause } from './connection.ts'
import { pathOf } from './handlers.ts'
import { ANSWER_LIMIT, WAIT_LIMIT, settlesWithin } from './limits.ts'

/** What a client needs to know about its child. */
export interface Environment {
  dial: Dial
  /** Targets of tunnels, by name. */
  authorities: Record<string, string>
  /** Asks the server for requests of the case that have not ended. @returns the problems */
  findOpen: (number: number) => Promise<string[]>
}

/** The content of a body. If the server misreads the framing, it finds a request there. */
function contentOf (size: number, id: string): string {
  const request = `GET /smuggled HTTP/1.1\r\nHost: a\r\nX-Id: ${id}s\r\n\r\n`
  return request.repeat(Math.ceil(size / request.length)).slice(0, size)
}

function chunksOf (content: string, parts: number): string[] {
  const size = Math.max(1, Math.ceil(content.length / parts))
  const chunks: string[] = []
  for (let at = 0; at < content.length; at += size) chunks.push(content.slice(at, at + size))
  return chunks
}

function chunked (content: string, parts: number): string {
  return chunksOf(content, parts).map((chunk) => `${chunk.length.toString(16)}\r\n${chunk}\r\n`).join('') + '0\r\n\r\n'
}

/** What a malformed request has in the middle of its body. */
const MALFORMED_CHUNKS = ['5\r\nhelloXX', 'g\r\n', '5 \r\nhello\r\n', '-1\r\n', '5\nhello\r\n', 'ffffffffffffffffff\r\n', '0\r\nContent-Length: 5\r\n\r\n', '0\r\n: x\r\n\r\n', '5;"\r\n', '\0']

export function requestOf (testCase: Case, id: string, authorities: Record<string, string>): { head: string, body: string } {
  const { request, size, parts } = testCase
  const content = contentOf(size, id)
  const path = pathOf(testCase.pace, testCase.handler)
  const lines = ['Host: a', `X-Id: ${id}`]
  if (testCase.refusedIn !== '') lines.push(`X-Refuse: ${testCase.refusedIn}`)
  const head = (method: string, target = path, version = '1.1'): string => `${method} ${target} HTTP/${version}\r\n${lines.join('\r\n')}\r\n\r\n`
  const length = `Content-Length: ${size}`
  if (request === 'none') return { head: head('GET'), body: '' }
  if (request === 'HEAD') return { head: head('HEAD'), body: '' }
  if (request === 'connect') {
    lines.push(`X-Handler: ${testCase.handler}`)
    const target = testCase.at < 0.05 ? 'nowhere' : authorities[testCase.target]
    // These bytes belong to the tunnel. If the tunnel is refused, they are an invalid request.
    if (testCase.at < 0.8) return { head: head('CONNECT', target), body: 'x'.repeat(size) }
    // CONNECT has no body, and the content must not be read as requests.
    lines.push(length)
    return { head: head('CONNECT', target), body: content }
  }
  if (request === 'many fields') {
    const limit = 15_500
    const field = 'a:'
    for (let i = 0; i < testCase.fields && i * (field.length + 2) < limit; i++) lines.push(field)
    lines.push(testCase.at < 0.3 ? 'Transfer-Encoding: chunked' : length)
    return { head: head('POST'), body: testCase.at < 0.3 ? chunked(content, parts) : content }
  }
  if (request === 'both framings') {
    lines.push(length, 'Transfer-Encoding: chunked')
    return { head: head('POST'), body: chunked(content, parts) }
  }
  if (request === 'upgrade') lines.push('Upgrade: tcp', 'Connection: upgrade')
  if (request === 'expect') lines.push('Expect: 100-continue')
  if (request === 'length' || request === 'HTTP/1.0' || (request !== 'chunked' && testCase.parts === 1)) {
    lines.push(length)
    return { head: head('POST', path, request === 'HTTP/1.0' ? '1.0' : '1.1'), body: content }
  }
  lines.push('Transfer-Encoding: chunked')
  return { head: head('POST'), body: chunked(content, parts) }
}

function ordinary (path: string, id: string): string {
  return `GET ${path} HTTP/1.1\r\nHost: a\r\nX-Id: ${id}\r\n\r\n`
}

const exchange = (id: string): string => `POST /patient/echo HTTP/1.1\r\nHost: a\r\nX-Id: ${id}\r\nContent-Length: 5\r\n\r\nhello`
const MANY = 30

function bytesBefore ({ number, before }: Case): string {
  const id = (n: number): string => `${number}.b${n}`
  if (before === 'big ordinary') return ordinary('/big', id(0))
  if (before === 'slow ordinary') return ordinary('/slow', id(0))
  if (before === 'exchange') return exchange(id(0))
  return before === 'several' ? ordinary('/slow', id(0)) + exchange(id(1)) + ordinary('/slow', id(2)) : ''
}

function bytesAfter ({ number, after }: Case): string {
  const id = (n: number): string => `${number}.a${n}`
  if (after === 'ordinary') return ordinary('/slow', id(0))
  if (after === 'exchange') return exchange(id(0))
  return after === 'many' ? Array.from({ length: MANY }, (_, n) => n % 3 === 0 ? ordinary('/pong', id(n)) : exchange(id(n))).join('') : ''
}

/** @returns the problems */
export async function runHttp1 (testCase: Case, { dial, authorities, findOpen }: Environment): Promise<string[]> {
  const connection = new Connection(await dial())
  try {
    await act(testCase, connection, authorities)
    // After detach() the handler is responsible for the connection.
    const problems = testCase.act === 'complete' && !testCase.handler.startsWith('detach') ? await sendNext(testCase, connection) : []
    // The server must end its exchanges although the client sends nothing more.
    if (testCase.mustEnd) problems.push(...(await findOpen(testCase.number)).map((what) => `before the client leaves, ${what}`))
    return problems
  } finally {
    connection.leave()
  }
}

async function act (testCase: Case, connection: Connection, authorities: Record<string, string>): Promise<void> {
  const { head, body } = requestOf(testCase, `${testCase.number}.0`, authorities)
  const bytes = head + body
  const isWhole = ['complete', 'half-close', 'stuck', 'stuck, then leaves'].includes(testCase.act)
  const at = testCase.act === 'malformed' ? head.length : Math.floor(testCase.at * bytes.length)
  if (!testCase.act.startsWith('stuck') && testCase.before !== 'big ordinary') connection.read()
  await connection.sendInParts(bytesBefore(testCase) + (isWhole ? bytes + bytesAfter(testCase) : bytes.slice(0, at)), testCase.parts)
  await pause(testCase.delay)
  if (testCase.act === 'complete') {
    connection.read()
  } else if (testCase.act === 'malformed') {
    connection.send(body.slice(0, Math.floor(body.length / 2)) + MALFORMED_CHUNKS[Math.floor(testCase.at * MALFORMED_CHUNKS.length)])
  } else if (testCase.act === 'garbage') {
    connection.send('\0\xff\x01'.repeat(10))
  } else if (testCase.act === 'truncated' || testCase.act === 'half-close') {
    connection.endSide()
  } else if (testCase.act === 'reset') {
    connection.reset()
  } else if (testCase.act === 'leave') {
    connection.leave()
  } else if (testCase.act === 'stuck, then leaves') {
    await pause(40)
    if (testCase.at < 0.5) connection.reset()
  }
  // A silent client reads: behind responses that are not read, an exchange may wait for ever.
  if (testCase.act === 'silent' || testCase.act === 'half-close') connection.read()
  if (['silent', 'malformed', 'garbage', 'truncated', 'half-close', 'stuck'].includes(testCase.act)) await settlesWithin(WAIT_LIMIT, connection.ended)
}

/** Sends the next request on the connection. It must be answered, or the connection must end. */
async function sendNext (testCase: Case, connection: Connection): Promise<string[]> {
  const id = `${testCase.number}.next`
  connection.send(ordinary('/pong', id))
  let answered = false
  const ended = connection.receives(`pong-${id}.`).then((received) => { answered = received })
  if (!await settlesWithin(ANSWER_LIMIT, ended)) return ['the next request on the connection is not answered']
  return answered || !testCase.mustKeep ? [] : ['the connection is not kept']
}
