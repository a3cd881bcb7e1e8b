// One process with many clients. By its task it holds idle exchanges open, or sends messages and leaves at random, or runs
// short exchanges one after the other.

import http from 'node:http'
import net from 'node:net'
import { setImmediate as immediate, setTimeout as sleep } from 'node:timers/promises'
import type { ClientReport, ClientTask } from './messages.ts'
import { answerTo, matches, pattern } from './pattern.ts'

const report: ClientReport = { opened: 0, ended: 0, halfClosed: 0, cutOff: 0, reset: 0, messages: 0, bytes: 0, wrong: [] }
/** What the parent has asked for. Clients begin to talk when all of them are open. */
const orders = { go: false, stop: false }

/** How many exchanges are being opened at the same time. */
const OPENING = 100
/** How many bytes of all exchanges together may be unanswered. More would only wait in queues. */
const MAX_IN_FLIGHT = 256 * 1024

process.on('message', (task: ClientTask) => {
  if (task.task === 'go' || task.task === 'stop') orders[task.task] = true
  else run(task).then(() => process.send!({ event: 'done', report }, () => process.disconnect()))
})

async function run (task: ClientTask): Promise<void> {
  if (task.task === 'hold') await hold(task)
  else if (task.task === 'talk') await talk(task)
  else await runShort(task)
}

// Idle exchanges

async function hold ({ port, path, connections }: ClientTask): Promise<void> {
  const agent = new http.Agent({ maxSockets: Infinity })
  const requests: http.ClientRequest[] = []
  await repeat(connections, OPENING, async () => {
    const request = http.request({ agent, port, path, host: '127.0.0.1', method: 'POST', headers: { 'content-type': 'application/octet-stream' } })
    requests.push(request)
    request.write('a')
    await new Promise<void>((resolve, reject) => {
      request.on('error', reject)
      request.on('response', (response) => response.on('data', () => resolve()))
    })
    report.opened++
  })
  process.send!({ event: 'open' })
  while (!orders.stop) await sleep(20)
  await Promise.all(requests.map((request) => new Promise<void>((resolve) => {
    request.on('close', resolve)
    request.end()
  })))
  report.ended = requests.length
}

/** Runs an action `count` times, `width` of them at the same time. */
async function repeat (count: number, width: number, action: () => Promise<void>): Promise<void> {
  let left = count
  await Promise.all(Array.from({ length: Math.min(width, count) }, async () => {
    while (left-- > 0) await action()
  }))
}

// Exchanges that send messages

/** How a client ends its exchange. `end` is repeated to be the most frequent. */
const ENDINGS = ['end', 'end', 'end', 'halfClose', 'cutOff', 'reset'] as const
type Ending = typeof ENDINGS[number]

let inFlight = 0

class Talker {
  readonly opened: Promise<void>
  readonly ended: Promise<void>
  /** Its index among the open talkers. */
  index = 0
  private readonly number: number
  private readonly request: http.ClientRequest
  private response: http.IncomingMessage | null = null
  private sent = 0
  private received = 0
  private ending: Ending | null = null
  private resolveEnded!: () => void

  constructor (number: number, port: number, agent: http.Agent) {
    this.number = number
    this.request = http.request({ agent, port, path: `/talk/${number}`, host: '127.0.0.1', method: 'POST' })
    this.ended = new Promise((resolve) => { this.resolveEnded = resolve })
    this.opened = new Promise((resolve) => {
      this.request.on('response', (response) => {
        this.onResponse(response)
        resolve()
      })
      this.request.on('error', (error) => {
        if (this.response === null) this.addProblem(`not opened: ${error.message}`)
        this.onBroken()
        resolve()
      })
    })
    this.request.flushHeaders()
  }

  send (size: number): void {
    this.request.write(pattern(this.number, this.sent, size))
    this.sent += size
    inFlight += size
    report.messages++
  }

  end (ending: Ending): void {
    if (this.ending !== null) return
    this.ending = ending
    const { socket } = this.request
    if (ending === 'end') this.request.end()
    else if (ending === 'halfClose') this.request.end(() => socket!.end())
    else if (ending === 'cutOff') socket!.end()
    else socket!.resetAndDestroy()
  }

  private onResponse (response: http.IncomingMessage): void {
    report.opened++
    this.response = response
    response.on('data', (chunk: Buffer) => {
      if (matches(chunk, answerTo(this.number), this.received)) report.bytes += chunk.length
      else this.addProblem(`status ${response.statusCode}, wrong bytes at ${this.received}: ${chunk.toString('latin1', 0, 200)}`)
      this.received += chunk.length
      inFlight -= chunk.length
    })
    response.on('end', () => this.onEnd())
    response.on('error', () => this.onBroken())
  }

  private onEnd (): void {
    const { ending, sent, received } = this
    if (ending !== 'end' && ending !== 'halfClose') this.addProblem(`the response ended after ${ending}`)
    else if (received !== sent || this.response!.trailers['x-received'] !== String(sent)) this.addProblem(`${sent} bytes sent, ${received} received`)
    else if (ending === 'end') report.ended++
    else report.halfClosed++
    this.resolveEnded()
  }

  /** The request or the response has failed; both may. */
  private onBroken (): void {
    if (this.ending === 'cutOff') report.cutOff++
    else if (this.ending === 'reset') report.reset++
    else this.addProblem(`broken after ${this.ending ?? 'no ending'}`)
    this.ending = 'reset'
    this.onBroken = () => {}
    inFlight -= this.sent - this.received
    this.resolveEnded()
  }

  private addProblem (problem: string): void {
    report.wrong.push(`exchange ${this.number}: ${problem}`)
  }
}

function maySend (talkers: Talker[]): boolean {
  return talkers.length > 0 && inFlight < MAX_IN_FLIGHT
}

async function talk ({ port, connections, index, clients }: ClientTask): Promise<void> {
  // The connection of an ended exchange is reused for the next one.
  const agent = new http.Agent({ keepAlive: true, maxSockets: Infinity, maxFreeSockets: connections })
  const talkers: Talker[] = []
  let number = index
  const open = async (): Promise<void> => {
    const talker = new Talker(number, port, agent)
    number += clients
    await talker.opened
    talker.index = talkers.push(talker) - 1
  }
  const remove = ({ index }: Talker): void => {
    const last = talkers.pop()!
    if (index === talkers.length) return
    talkers[index] = last
    last.index = index
  }
  const ending = new Set<Promise<void>>()
  /** Ends an exchange, and opens another in its place. */
  const replace = (talker: Talker, how: Ending): void => {
    remove(talker)
    talker.end(how)
    const replaced = talker.ended.then(() => orders.stop ? undefined : open()).then(() => { ending.delete(replaced) })
    ending.add(replaced)
  }
  await repeat(connections, OPENING, open)
  process.send!({ event: 'open' })
  while (!orders.go) await sleep(20)
  while (!orders.stop) {
    for (let i = 0; i < 50 && maySend(talkers); i++) {
      const talker = talkers[Math.floor(Math.random() * talkers.length)]
      talker.send(1 + Math.floor(Math.random() ** 4 * 4000))
      if (Math.random() < 0.05 && ending.size < OPENING) replace(talker, ENDINGS[Math.floor(Math.random() * ENDINGS.length)])
    }
    await immediate()
  }
  while (ending.size > 0) await Promise.all(ending)
  while (talkers.length > 0) replace(talkers[0], 'end')
  await Promise.all(ending)
  agent.destroy()
}

// Short exchanges

/** Short exchanges, one after the other, on a bare socket. Node's own client would take most of the time. */
async function runShortOn (port: number, next: () => number): Promise<void> {
  const socket = net.connect(port, '127.0.0.1').setNoDelay(true)
  socket.setEncoding('latin1')
  let received = ''
  let expected = ''
  const sendRequest = (): void => {
    const number = next().toString(16).padStart(8, '0')
    expected = `\r\n\r\n8\r\n${number}\r\n0\r\n\r\n`
    socket.write(`POST /duplex HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n8\r\n${number}\r\n0\r\n\r\n`)
  }
  sendRequest()
  await new Promise<void>((resolve) => {
    socket.on('data', (text: string) => {
      received += text
      if (!received.endsWith('\r\n0\r\n\r\n')) return
      if (received.startsWith('HTTP/1.1 200 ') && received.endsWith(expected) && received.length < 400) report.ended++
      else report.wrong.push(received.slice(0, 400))
      received = ''
      if (orders.stop || report.wrong.length > 0) socket.end()
      else sendRequest()
    })
    socket.on('error', (error) => report.wrong.push(error.message))
    socket.on('close', () => resolve())
  })
}

async function runShort ({ port, connections, index, clients }: ClientTask): Promise<void> {
  let number = index
  const next = (): number => {
    report.opened++
    number += clients
    return number % 2 ** 32
  }
  const all = Array.from({ length: connections }, () => runShortOn(port, next))
  process.send!({ event: 'open' })
  await Promise.all(all)
}
