// The child process of one app. It serves, records its requests, and reports uncaught exceptions to its parent.

import type { FastifyInstance } from 'fastify'
import { MAX_EXCHANGES, serve } from './app.ts'
import { Audit } from './audit.ts'
import { caseOf } from './case.ts'
import { takeCensus } from './census.ts'
import { dialer } from './connection.ts'
import { AUDIT_LIMIT, DIFFERENCE_LIMIT, EXIT_LIMIT } from './limits.ts'
import { runHttp1 } from './http1-client.ts'
import { memoryDialer, runMemory } from './memory-client.ts'
import { type Message, type Question, UNCAUGHT } from './messages.ts'
import { servePair } from './ordinary/app.ts'
import { differences } from './ordinary/log.ts'
import { isComparison, isHttp2, tcpOrTls } from './kinds.ts'
import type { Profile } from './profile.ts'
import { listenTargets } from './targets.ts'

function tell (message: Message, then = (): void => {}): void {
  if (process.connected) process.send!(message, undefined, undefined, then)
}

process.on('uncaughtException', (error, origin) => {
  tell({ tell: 'uncaught', origin, stack: String(error instanceof Error ? error.stack : error) }, () => process.exit(UNCAUGHT))
})

async function main (): Promise<void> {
  const [seed, profile] = JSON.parse(process.argv[2]) as [number, Profile]
  if (isComparison(profile.transport)) await serveComparison(profile)
  else await serveApp(seed, profile)
}

/** Prints what keeps the process alive. The timer does not fire if the process exits in time. */
function printLeftovers (): void {
  setTimeout(() => { console.error('still active:', process.getActiveResourcesInfo().join(', ')) }, EXIT_LIMIT / 2).unref()
}

function answerQuestions (answer: (question: Question) => Promise<string[]>, onClosed: () => void): void {
  // The parent has died.
  const onOrphaned = (): void => process.exit()
  process.on('disconnect', onOrphaned)
  process.on('message', async ({ number, question }: { number: number, question: Question }) => {
    tell({ tell: 'answer', number, problems: await answer(question) })
    if (question.ask !== 'close') return
    onClosed()
    process.removeListener('disconnect', onOrphaned)
    process.disconnect()
    printLeftovers()
  })
}

async function serveComparison (profile: Profile): Promise<void> {
  const audit = new Audit()
  const { app, plain, log, plainLog, address, plainAddress } = await servePair(profile, audit)
  answerQuestions(async (question) => {
    if (question.ask === 'open requests') return audit.findOpen(question.case, AUDIT_LIMIT)
    if (question.ask === 'differences') return differences(log, plainLog, question.prefix, question.requests, DIFFERENCE_LIMIT)
    if (question.ask === 'census') return takeCensus(audit, dialer(tcpOrTls(profile.transport), address), false, MAX_EXCHANGES)
    await Promise.all([app.close(), plain.close()])
    return audit.findOpen(null, AUDIT_LIMIT)
  }, () => {})
  tell({ tell: 'ready', address, plainAddress, authorities: {} })
}

async function serveApp (seed: number, profile: Profile): Promise<void> {
  const audit = new Audit()
  const targets = await listenTargets()
  const { app, address } = await serve(profile, audit, (id) => tell({ tell: 'smuggled', id }))
  const dial = profile.transport === 'memory' ? memoryDialer(app) : dialer(profile.transport, address)
  const findOpen = (number: number): Promise<string[]> => audit.findOpen(number, AUDIT_LIMIT)

  const running = new Set<Promise<unknown>>()
  answerQuestions(answer, () => targets.close())

  async function answer (question: Question): Promise<string[]> {
    if (question.ask === 'open requests') return findOpen(question.case)
    if (question.ask === 'census') return takeCensus(audit, dial, isHttp2(profile.transport), MAX_EXCHANGES)
    if (question.ask === 'close') return close(app)
    if (question.ask !== 'run') throw new Error(`no answer to ${question.ask}`)
    const testCase = caseOf(seed, question.case, profile)
    const environment = { dial, authorities: targets.authorities, findOpen }
    const run = testCase.client === 'memory' ? runMemory(testCase, app, environment) : runHttp1(testCase, environment)
    running.add(run)
    return run.finally(() => running.delete(run))
  }

  async function close (app: FastifyInstance): Promise<string[]> {
    await app.close()
    await Promise.allSettled(running)
    return audit.findOpen(null, AUDIT_LIMIT)
  }

  tell({ tell: 'ready', address, authorities: targets.authorities })
}

main()
