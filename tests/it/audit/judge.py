"""Reads syslog messages (a JSON list of strings) from stdin; prints for each, as a JSON list, what it says in one line.

Every header is held to RFC 5424, every XML document to the schema of DICOM PS3.15 A.5.1 (order, obligation and values of all that is used)."""

import base64
import json
import re
import sys
import xml.etree.ElementTree as ET

HEADER = re.compile(
    r"<(8[45])>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) ([!-~]{1,255}) stunetd ([0-9]{1,20}) DICOM\+RFC3881 - \ufeff(<\?xml .*)", re.S
)
CODED = ({"csd-code", "codeSystemName", "originalText"}, {"displayName"}, "")
# Element: attributes that have to be there, those that may, and its children in their order.
SCHEMA = {
    "AuditMessage": (set(), set(), "EventIdentification (ActiveParticipant )+AuditSourceIdentification (ParticipantObjectIdentification )*"),
    "EventIdentification": (
        {"EventActionCode", "EventDateTime", "EventOutcomeIndicator"},
        set(),
        "EventID (EventTypeCode )*(EventOutcomeDescription )?",
    ),
    "EventID": CODED,
    "EventTypeCode": CODED,
    "EventOutcomeDescription": (set(), set(), ""),
    "ActiveParticipant": (
        {"UserID", "UserIsRequestor"},
        {"AlternativeUserID", "UserName", "NetworkAccessPointID", "NetworkAccessPointTypeCode"},
        "(RoleIDCode )*",
    ),
    "RoleIDCode": CODED,
    "AuditSourceIdentification": ({"AuditSourceID"}, {"AuditEnterpriseSiteID"}, "(AuditSourceTypeCode )*"),
    "AuditSourceTypeCode": ({"csd-code"}, {"codeSystemName", "displayName", "originalText"}, ""),
    "ParticipantObjectIdentification": (
        {"ParticipantObjectID"},
        {"ParticipantObjectTypeCode", "ParticipantObjectTypeCodeRole", "ParticipantObjectDataLifeCycle", "ParticipantObjectSensitivity"},
        "ParticipantObjectIDTypeCode (ParticipantObjectName |ParticipantObjectQuery )(ParticipantObjectDetail )*(ParticipantObjectDescription )*",
    ),
    "ParticipantObjectIDTypeCode": CODED,
    "ParticipantObjectName": (set(), set(), ""),
    "ParticipantObjectDetail": ({"type", "value"}, set(), ""),
    "ParticipantObjectDescription": (set(), set(), "(MPPS )*(Accession )*(SOPClass )*"),
    "SOPClass": ({"NumberOfInstances"}, {"UID"}, "(Instance )*"),
}
VALUES = {
    "EventActionCode": "[CRUDE]",
    "EventOutcomeIndicator": "0|4|8|12",
    "EventDateTime": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z",
    "UserIsRequestor": "true|false",
    "NetworkAccessPointTypeCode": "[12345]",
    "ParticipantObjectTypeCode": "[1234]",
    "ParticipantObjectTypeCodeRole": r"[1-9]|1\d|2[0-6]",
    "NumberOfInstances": r"\d+",
}
WITH_TEXT = {"EventOutcomeDescription", "ParticipantObjectName"}


def check(element):
    needed, allowed, children = SCHEMA[element.tag]
    attributes = set(element.attrib)
    assert needed <= attributes <= needed | allowed, (element.tag, attributes)
    for name, value in element.attrib.items():
        assert re.fullmatch(VALUES.get(name, ".*"), value, re.S), (name, value)
    assert re.fullmatch(children, "".join(child.tag + " " for child in element)), (element.tag, [c.tag for c in element])
    assert element.tag in WITH_TEXT or not (element.text or "").strip(), element.tag
    assert ("NetworkAccessPointID" in attributes) == ("NetworkAccessPointTypeCode" in attributes)
    for child in element:
        check(child)


def told(message):
    header = HEADER.fullmatch(message)
    assert header, message[:200]
    severity, time, host, process, document = header.groups()
    root = ET.fromstring(document)
    assert root.tag == "AuditMessage"
    check(root)
    event = root.find("EventIdentification")
    assert event.get("EventDateTime") == time
    outcome = event.get("EventOutcomeIndicator")
    assert (severity == "85") == (outcome == "0")
    kind = event.find("EventTypeCode")
    words = [event.find("EventID").get("csd-code"), "-" if kind is None else kind.get("csd-code"), event.get("EventActionCode"), outcome]
    description = event.findtext("EventOutcomeDescription")
    if description:
        words.append(f"({description})")
    for one in root.findall("ActiveParticipant"):
        user = one.get("UserID")
        place = one.get("NetworkAccessPointID", "")
        if user == process:
            assert one.get("UserName") == "stunetd" and place == host
            user, place = "stunetd", "here"
        roles = "".join(" " + role.get("csd-code") for role in one.findall("RoleIDCode"))
        ends = "!" if one.get("UserIsRequestor") == "true" else ""
        title = one.get("AlternativeUserID", "").removeprefix("AETITLES=")
        words.append(f"| {user}{ends}{'=' + title if title else ''}{'@' + place if place else ''}{roles}")
    assert sum(one.get("UserIsRequestor") == "true" for one in root.findall("ActiveParticipant")) == 1
    words.append("> " + root.find("AuditSourceIdentification").get("AuditSourceID"))
    for thing in root.findall("ParticipantObjectIdentification"):
        role = thing.get("ParticipantObjectTypeCode") + "." + thing.get("ParticipantObjectTypeCodeRole")
        code = thing.find("ParticipantObjectIDTypeCode").get("csd-code")
        words.append(f"| {role} {code} {thing.get('ParticipantObjectID')}")
        name = thing.findtext("ParticipantObjectName")
        if name != thing.get("ParticipantObjectID"):
            words.append(name)
        for detail in thing.findall("ParticipantObjectDetail"):
            words.append(f"{detail.get('type')}: {base64.b64decode(detail.get('value'), validate=True).decode()}")
        for one in thing.iter("SOPClass"):
            words.append(f"{one.get('UID')}x{one.get('NumberOfInstances')}")
    return " ".join(words)


print(json.dumps([told(message) for message in json.load(sys.stdin)]))
